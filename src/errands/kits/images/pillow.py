"""Images made by Pillow, in child processes with limits."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from errands.children import MIB, ChildCrashed, Children, LimitReached, Limits
from errands.imaging import ImageBounds, ImageRefused
from errands.kits.images.provider import CompressedImage, Images, Source, Variant

LIMITS = Limits(memory=768 * MIB, seconds=120, cpu_seconds=60, keep=256 * MIB)
"""For what `ImageBounds` lets through by default."""

_MOST_VARIANTS = 20
_log = logging.getLogger(__name__)


class PillowImages(Images):
    """Makes images with Pillow.

    A file that brings down its decoder, or makes it take more than it may, harms its own call alone, and is
    refused.

    Args:
        bounds: how large an image may be.
        limits: of each child process; memory for the largest image that `bounds` allow.
        processes: how many there are at the most, and so how many images at a time; as many as processors by
            default.
    """

    def __init__(
        self, bounds: ImageBounds | None = None, *, limits: Limits = LIMITS, processes: int | None = None
    ) -> None:
        self._bounds = bounds or ImageBounds()
        self._children = Children("images", limits, size=processes, raises=(ImageRefused,))

    @property
    def max_bytes(self) -> int:
        return self._bounds.max_bytes

    async def compress(self, image: bytes | Path, *variants: Variant) -> list[CompressedImage]:
        data = await asyncio.to_thread(self._bounds.read, image) if isinstance(image, Path) else image
        self._bounds.check_size(len(data))
        wanted = variants or (Variant(),)
        if len(wanted) > _MOST_VARIANTS:
            raise ValueError(f"{len(wanted)} variants of one image; {_MOST_VARIANTS} are the most")
        answer = await self._work(data, [asdict(variant) for variant in wanted])
        source = Source(**answer["source"], size=len(data))
        return [
            CompressedImage(
                data=made["data"],
                width=made["width"],
                height=made["height"],
                format=variant.format,
                sha256=hashlib.sha256(made["data"]).hexdigest(),
                done=tuple(made["done"]),
                source=source,
            )
            for variant, made in zip(wanted, answer["variants"], strict=True)
        ]

    async def aclose(self) -> None:
        """End the child processes, in the middle of their work as well."""
        await self._children.aclose()

    async def _work(self, data: bytes, variants: list[dict[str, Any]]) -> Any:
        name = "errands.kits.images.work:compress"
        try:
            return await self._children.acall(name, data, asdict(self._bounds), variants)
        except (LimitReached, ChildCrashed) as error:
            if error.may_pass:
                raise
            _log.warning("an image was refused: %s", error)
            reason = (
                "takes more memory or time than it may" if isinstance(error, LimitReached) else "is damaged"
            )
            raise ImageRefused(f"the image can't be decoded: it {reason}") from error
