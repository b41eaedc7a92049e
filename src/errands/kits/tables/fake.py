"""For tests: a target and a place for files, in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands.kits.tables.checking import Key
from errands.kits.tables.target import Target, Update


class FakeTarget(Target):
    """Keeps rows in `rows`, by key. A chunk that is rolled back is not taken back here, and a dry run writes:
    it is for tests of what an import finds and counts, not of crashes.

    Args:
        key: the fields of the key.
    """

    def __init__(self, key: str | Sequence[str]) -> None:
        self._key = (key,) if isinstance(key, str) else tuple(key)
        self.rows: dict[Key, dict[str, Any]] = {}

    async def count(self, session: AsyncSession) -> int:
        return len(self.rows)

    async def existing(self, session: AsyncSession, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, Any]]:
        return {key: dict(self.rows[key]) for key in keys if key in self.rows}

    async def apply(
        self, session: AsyncSession, creates: Sequence[Mapping[str, Any]], updates: Sequence[Update]
    ) -> None:
        for row in creates:
            self.rows[tuple(row[field] for field in self._key)] = dict(row)
        for update in updates:
            self.rows[update.key].update(update.values)


@dataclass(frozen=True, slots=True)
class FakeFile:
    """A file in `FakeFiles`."""

    key: str
    content: bytes
    content_type: str


class FakeFiles:
    """Keeps files in `files`, by key, and answers links of no server."""

    def __init__(self) -> None:
        self.files: dict[str, FakeFile] = {}

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> FakeFile:
        content = await asyncio.to_thread(data.read_bytes) if isinstance(data, Path) else data
        key = key or f"files/{hashlib.sha256(content).hexdigest()}{suffix}"
        self.files[key] = FakeFile(key, content, content_type)
        return self.files[key]

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        if key not in self.files:
            raise FileNotFoundError(f"there is no file {key}")
        content = self.files[key].content
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    async def exists(self, key: str) -> bool:
        return key in self.files

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        return f"https://files.test/{key}?name={filename}"

    def key_for(self, folder: str, unique: str, suffix: str = "") -> str:
        return f"{folder}/{hashlib.sha256(unique.encode()).hexdigest()}{suffix}"
