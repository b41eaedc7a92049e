"""A storage for tests: keeps everything in memory and forgets it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

from errands.kits.storage.blocks import blocks
from errands.kits.storage.errors import StoredFileNotFound
from errands.kits.storage.keys import check_content_type, check_key, new_key
from errands.kits.storage.links import LinkSigner
from errands.kits.storage.provider import Storage, StoredFile

_CHUNK = 64 * 1024


class MemoryStorage(Storage):
    """Keeps files in `files` (key to properties and bytes), so that a test can look at what was stored.

    Without `signer` it signs links to `https://files.test` with a key of its own.
    """

    def __init__(self, signer: LinkSigner | None = None) -> None:
        self.signer = signer or LinkSigner(secrets.token_bytes(32), "https://files.test")
        self.files: dict[str, tuple[StoredFile, bytes]] = {}

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> StoredFile:
        key = new_key(suffix) if key is None else check_key(key)
        check_content_type(content_type)
        content = await asyncio.to_thread(data.read_bytes) if isinstance(data, Path) else bytes(data)
        file = StoredFile(key, len(content), content_type, hashlib.sha256(content).hexdigest())
        self.files[key] = file, content
        return file

    async def put_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        suffix: str = "",
        key: str | None = None,
        limit: int | None = None,
    ) -> StoredFile:
        key = new_key(suffix) if key is None else check_key(key)
        check_content_type(content_type)
        content = b"".join([block async for block in blocks(chunks, limit)])
        return await self.put(content, content_type=content_type, key=key)

    async def info(self, key: str) -> StoredFile:
        return self._get(key)[0]

    async def read(self, key: str) -> bytes:
        return self._get(key)[1]

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        content = self._get(key)[1]
        for start in range(0, len(content), _CHUNK):
            yield content[start : start + _CHUNK]

    async def exists(self, key: str) -> bool:
        return check_key(key) in self.files

    async def delete(self, key: str) -> None:
        self.files.pop(check_key(key), None)

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        return self.signer.sign(key, filename=filename, expires_in=expires_in, owner=owner)

    def _get(self, key: str) -> tuple[StoredFile, bytes]:
        if check_key(key) not in self.files:
            raise StoredFileNotFound(f"there is no stored file {key}")
        return self.files[key]
