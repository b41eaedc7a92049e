"""The public check of a certificate, and its file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse

from errands.kits.storage import Storage, StoredFileNotFound
from errands.kits.storage.links import content_disposition
from school.access import Admin, MaybeSignedIn, Reading, Writing, client_address, throttle
from school.app import app
from school.certificates import links, service
from school.certificates.numbers import parse
from school.pages import page, prefers_html

router = APIRouter(prefix="/certificates", tags=["certificates"])

CHECKS_A_MINUTE = 30
Number = Annotated[str, PathParameter(max_length=100)]


async def _not_too_often(request: Request) -> None:
    await throttle("certificate", client_address(request), most=CHECKS_A_MINUTE, seconds=60)


@router.get("/{number}.pdf")
async def download(number: Number, request: Request, user: MaybeSignedIn, session: Reading) -> Response:
    """The file: for its owner, or with a signed link."""
    canonical = parse(number)
    found = await service.issued(session, canonical) if canonical else None
    if found is None:
        raise HTTPException(404, "No certificate has this number.")
    certificate, owner_id = found
    if not links.opens(certificate, request.query_params) and (user is None or user.id != owner_id):
        if "signature" in request.query_params:
            raise HTTPException(403, "This link does not hold any more; sign in, or ask for a new one.")
        if user is None:
            raise HTTPException(
                401, "Sign in, or use the link that was mailed.", {"WWW-Authenticate": "Bearer"}
            )
        raise HTTPException(404, "No certificate has this number.")
    if certificate.revoked_at is not None:
        raise HTTPException(410, "This certificate was withdrawn.")
    storage = app.resources.instance(Storage)  # type: ignore[type-abstract]
    try:
        data = await storage.read(certificate.file_key)
    except StoredFileNotFound:
        raise HTTPException(404, "The file of this certificate is gone; it can be made again.") from None
    headers = {
        "Content-Disposition": content_disposition(links.filename(certificate)),
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, headers=headers, media_type="application/pdf")


@router.get("/{number}", response_model=None, dependencies=[Depends(_not_too_often)])
async def check(number: Number, request: Request, session: Reading) -> Response:
    """Whether this certificate is valid, for whom and for what. A page for browsers, else JSON."""
    canonical = parse(number)
    found = await service.issued(session, canonical) if canonical else None
    certificate = found[0] if found else None
    revoked = certificate is not None and certificate.revoked_at is not None
    valid = certificate is not None and not revoked
    status = 200 if certificate else 404
    shown = certificate.number if certificate else (canonical or number)
    facts = (
        {"name": certificate.student, "course": certificate.course, "completed_on": certificate.completed_on}
        if certificate and valid
        else {}
    )
    if prefers_html(request):
        return page("certificate", status, valid=valid, revoked=revoked, number=shown, **facts)
    answer: dict[str, object] = {"valid": valid, "number": shown}
    if facts:
        answer |= {**facts, "completed_on": str(facts["completed_on"])}
    else:
        answer["detail"] = "This certificate was withdrawn." if revoked else "No certificate has this number."
    return JSONResponse(answer, status, {"Cache-Control": "no-store", "Vary": "Accept"})


@router.delete("/{number}", status_code=204)
async def revoke(number: Number, _: Admin, session: Writing) -> Response:
    """Withdraw a certificate: its page says so from now on."""
    canonical = parse(number)
    if canonical is None or not await service.revoke(session, canonical):
        raise HTTPException(404, "No certificate has this number.")
    return Response(status_code=204)
