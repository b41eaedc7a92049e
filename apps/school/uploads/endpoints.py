"""Uploading files; what is made of them comes later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, HTTPException, UploadFile
from sqlalchemy.ext.asyncio import AsyncSession

from errands.kits.storage import Files, FileTooLarge, QuotaExceeded, Storage, StoredFile
from errands.kits.storage.links import safe_filename
from school import dispatch
from school.access import Reading, SignedIn, Writing
from school.app import app
from school.fields import Id
from school.people.tables import User
from school.uploads import kinds, service
from school.uploads.tables import Upload

router = APIRouter(tags=["uploads"])

_CHUNK = 256 * 1024
_LINK_SECONDS = 3600
MOST_FILES = 20


@router.post("/uploads", status_code=202)
async def upload(
    file: UploadFile, user: SignedIn, session: Writing, purpose: kinds.Purpose | None = None
) -> dict[str, Any]:
    """Upload one file. A text's lines are counted, a photo is made smaller, a letter is read.

    `purpose` says which, where the file's name leaves it open.
    """
    kind = _kind_of(file, purpose)
    stored = await _store(file, kind, user)
    made = await _note(session, file, kind, stored, user)
    dispatch.uploaded(session, made)
    return {
        "task_id": made.run_id, "upload_id": made.id, "filename": made.filename, "size": made.size,
        "status": "processing", "message": "The file is processed in the background.",
    }  # fmt: skip


@router.post("/uploads/many", status_code=202)
async def upload_many(
    files: Annotated[list[UploadFile], File(min_length=1, max_length=MOST_FILES)],
    user: SignedIn, session: Writing,
) -> dict[str, Any]:  # fmt: skip
    """Upload several files, processed side by side. `task_id` tells how far all of them are together."""
    chosen = [_kind_of(file, None) for file in files]  # all or none
    stored = [await _store(file, kind, user) for file, kind in zip(files, chosen, strict=True)]
    made = [await _note(session, *each, user) for each in zip(files, chosen, stored, strict=True)]
    task_id = dispatch.uploaded_together(session, made)
    return {
        "task_id": task_id, "status": "processing",
        "uploads": [
            {"upload_id": each.id, "task_id": each.run_id, "filename": each.filename} for each in made
        ],
        "message": f"{len(made)} files are processed in the background.",
    }  # fmt: skip


@router.post("/uploads/{upload_id}/report", status_code=202)
async def report(upload_id: Id, user: SignedIn, session: Writing) -> dict[str, Any]:
    """Have a text analysed: a report as PDF, and a notification when it is there."""
    found = await _own(session, upload_id, user)
    if found.purpose != kinds.Purpose.FILE:
        raise HTTPException(409, "This is for texts: a .txt, .csv or .json.")
    task_id = dispatch.file_report_wanted(session, upload_id, owner=user.id)
    return {"task_id": task_id, "status": "generating", "message": "The report is being made."}


@router.get("/uploads/{upload_id}")
async def one(upload_id: Id, user: SignedIn, session: Reading) -> dict[str, Any]:
    """An upload of one's own, and the photos that were made of it, with links that hold for an hour."""
    found = await _own(session, upload_id, user)
    storage: Storage = app.resources.instance(Storage)  # type: ignore[type-abstract]
    photos = [
        {
            "name": photo.name, "width": photo.width, "height": photo.height, "size": photo.size,
            "url": await storage.link(
                photo.key, filename=f"{photo.name}-{found.filename}", expires_in=_LINK_SECONDS,
                owner=str(user.id),
            ),
        }
        for photo in await service.photos_of(session, upload_id)
    ]  # fmt: skip
    return {
        "id": found.id, "filename": found.filename, "content_type": found.content_type, "size": found.size,
        "purpose": found.purpose, "task_id": found.run_id, "created_at": found.created_at, "photos": photos,
    }  # fmt: skip


def _kind_of(file: UploadFile, purpose: kinds.Purpose | None) -> kinds.Kind:
    found = kinds.kind_of(file.filename or "", purpose)
    if found is None:
        fitting = f" that can be a {purpose.value}" if purpose else ""
        name = safe_filename(file.filename or "")
        raise HTTPException(415, f"{name}: upload one of {' '.join(kinds.SUFFIXES)}{fitting}.")
    return found


async def _store(file: UploadFile, kind: kinds.Kind, user: User) -> StoredFile:
    """Store the file, before any row names it: a file that nobody refers to goes with a sweep."""
    try:
        return await app.resources.instance(Files).put_stream(
            _chunks(file), content_type=kind.content_type, owner=f"user:{user.id}", suffix=kind.suffix,
            limit=kinds.MOST_BYTES,
        )  # fmt: skip
    except (FileTooLarge, QuotaExceeded) as exc:
        raise HTTPException(413, str(exc)) from exc


async def _note(
    session: AsyncSession, file: UploadFile, kind: kinds.Kind, stored: StoredFile, user: User
) -> Upload:
    upload = await service.add(
        session, user_id=user.id, key=stored.key, filename=safe_filename(file.filename or ""),
        content_type=kind.content_type, size=stored.size, purpose=kind.purpose.value,
        run_id=dispatch.new_id(),
    )  # fmt: skip
    await app.resources.instance(Files).keep(stored.key, referrer=f"upload:{upload.id}", session=session)
    return upload


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK):
        yield chunk


async def _own(session: AsyncSession, upload_id: int, user: User) -> Upload:
    found = await service.get(session, upload_id)
    if found is None or found.user_id != user.id:
        raise HTTPException(404, "There is no such upload.")
    return found
