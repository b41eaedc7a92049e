"""Images that lie in a storage: read, made smaller, stored again; one or many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from errands import Discard, ErrandsError
from errands.imaging import ImageRefused
from errands.kits.images.provider import Images, Source, Variant

_AT_ONCE = 8  # that are read, made or stored at a time; each holds its file in memory


class Files(Protocol):
    """What is needed of a storage; every `Storage` of the storage kit has it."""

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """The file in chunks."""
        ...

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> Any:
        """Keep `data` under `key`; what comes back has a `key`, and may have a `url` and a `public_id`."""
        ...

    def key_for(self, folder: str, unique: str, suffix: str = "") -> str:
        """The one key for `unique` in `folder`."""
        ...


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that was made and stored; see `CompressedImage`.

    `url` and `public_id`: where the storage gives such (Cloudinary), else None. `size`: bytes.
    """

    key: str
    url: str | None
    public_id: str | None
    width: int
    height: int
    size: int
    format: str
    content_type: str
    sha256: str
    done: tuple[str, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image of many: `stored`, or the `error`, which is final if `refused`, and may pass
    the next time if not."""

    image: str
    stored: tuple[StoredImage, ...] = ()
    error: str | None = None
    refused: bool = False


async def compress_stored(
    images: Images,
    files: Files,
    image: str,
    *variants: Variant,
    folder: str = "images",
    unique: str | None = None,
    into: Files | None = None,
) -> tuple[StoredImage, ...]:
    """Read the stored upload `image`, and store each of its variants. The upload stays.

    Doing it twice leaves the same files.

    Args:
        image: the key of the upload in `files`.
        variants: see `Images.compress`.
        folder: in which they are stored: lower-case letters, digits, - and _.
        unique: what is theirs in that folder; the upload's own key by default. With an entity's name and id a
            new picture takes the place of the one before.
        into: another storage for them, such as Cloudinary.

    Raises:
        ImageRefused: the upload can't be used, and no repetition mends that.
        FileNotFoundError: there is no such upload.
        ErrandsError, OSError: what the storage raises.
    """
    target = files if into is None else into
    wanted = variants or (Variant(),)
    made = await images.compress(await _read(files, image, images.max_bytes), *wanted)
    stored = []
    for variant, each in zip(wanted, made, strict=True):
        size = "x".join(map(str, variant.max_size))
        key = target.key_for(folder, f"{image if unique is None else unique}/{size}", each.suffix)
        kept = await target.put(each.data, content_type=each.content_type, key=key)
        stored.append(
            StoredImage(
                key=key,
                url=getattr(kept, "url", None),
                public_id=getattr(kept, "public_id", None),
                width=each.width,
                height=each.height,
                size=each.size,
                format=each.format,
                content_type=each.content_type,
                sha256=each.sha256,
                done=each.done,
                source=each.source,
            )
        )
    return tuple(stored)


async def compress_many(
    images: Images,
    files: Files,
    keys: Iterable[str],
    *variants: Variant,
    folder: str = "images",
    into: Files | None = None,
    at_once: int = _AT_ONCE,
) -> list[Outcome]:
    """`compress_stored` for each of `keys`, side by side: one outcome each, in their order.

    One that fails does not keep the others from being made. What was stored stays, so a task may be tried
    again while there is an outcome with an error that is not `refused`.

    Args:
        at_once: how many are read, made or stored at a time.
    """
    turns = asyncio.Semaphore(at_once)

    async def one(key: str) -> Outcome:
        async with turns:
            try:
                stored = await compress_stored(images, files, key, *variants, folder=folder, into=into)
            except (ErrandsError, OSError) as error:
                refused = isinstance(error, Discard | FileNotFoundError | ValueError)
                return Outcome(key, error=str(error), refused=refused)
            return Outcome(key, stored)

    return await asyncio.gather(*(one(key) for key in keys))


async def _read(files: Files, key: str, most: int) -> bytes:
    data = bytearray()
    async for chunk in files.stream(key):
        data += chunk
        if len(data) > most:
            raise ImageRefused(f"the upload {key} has more than {most / 1e6:.1f} MB")
    return bytes(data)
