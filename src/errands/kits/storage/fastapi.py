"""The route behind download links, for FastAPI and Starlette applications."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from errands.kits.storage.errors import (
    InvalidKey,
    LinkExpired,
    LinkForged,
    StorageUnavailable,
    StoredFileNotFound,
)
from errands.kits.storage.links import LinkSigner, content_disposition
from errands.kits.storage.provider import Storage

_RETRY_AFTER = 10.0  # seconds, where the storage says nothing

_log = structlog.get_logger(__name__)


def files_router(
    storage: Storage | Callable[[], Storage],
    signer: LinkSigner | Callable[[], LinkSigner],
    *,
    signed_in: Callable[[Request], str | None] | None = None,
) -> APIRouter:
    """`GET` and `HEAD` of `/files/<key>?…`: sends the file to whoever holds a good link.

    `storage`, `signer`: as they are, or what gives them at each request (`lambda:
    app.resources.instance(Storage)`, where the app is not set up yet when the routes are made).

    403: the link was not made by us or was changed; 410: its time is over; 404: the file is gone; 503: the
    storage does not answer just now.

    `signed_in` tells who asks (None: nobody). With it, a link that names an owner serves that owner alone and
    is 403 for everybody else; without it, a link serves whoever holds it, as in a mail.
    """
    router = APIRouter()

    @router.api_route("/files/{key:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def download(key: str, request: Request) -> Response:
        files: Storage = storage() if callable(storage) else storage
        try:
            link = (signer() if callable(signer) else signer).check(key, request.query_params)
        except LinkForged as error:
            raise HTTPException(403, str(error)) from None
        except LinkExpired as error:
            raise HTTPException(410, str(error)) from None
        if link.owner is not None and signed_in is not None and signed_in(request) != link.owner:
            raise HTTPException(403, "this link is for somebody else; sign in as the one it was made for")
        try:
            file = await files.info(link.key)
            chunks = files.stream(link.key)
            # Read ahead of the headers: a file that can't be opened is still a 404.
            first = b"" if request.method == "HEAD" else await anext(chunks, b"")
        except (InvalidKey, StoredFileNotFound):
            raise HTTPException(404, "this file is gone") from None
        except StorageUnavailable as error:
            after = max(1, math.ceil(error.retry_after or _RETRY_AFTER))
            _log.warning("a download has to wait for the storage", key=link.key, error=str(error))
            raise HTTPException(503, "try again in a moment", {"Retry-After": str(after)}) from None
        headers = {
            "Content-Disposition": content_disposition(link.filename),
            "Content-Length": str(file.size),
            "Content-Type": file.content_type,
            "Cache-Control": "private, no-store",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if request.method == "HEAD":
            return Response(headers=headers)
        return StreamingResponse(_with(first, chunks), headers=headers)

    return router


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
