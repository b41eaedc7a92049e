"""Images for tests: nothing is decoded, and no process is started."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

from errands.imaging import ImageBounds, ImageRefused
from errands.kits.images.provider import CompressedImage, Images, Source, Variant


class FakeImages(Images):
    """Remembers what it was asked for in `calls`, as (bytes, variants).

    Every image is 4000 x 3000 pixels, and comes back as large as each variant allows; its bytes are JSON that
    says what was asked for. `refuse`: bytes that are refused.
    """

    def __init__(self, *, refuse: tuple[bytes, ...] = ()) -> None:
        self.calls: list[tuple[bytes, tuple[Variant, ...]]] = []
        self._refuse = refuse

    @property
    def max_bytes(self) -> int:
        return ImageBounds().max_bytes

    async def compress(self, image: bytes | Path, *variants: Variant) -> list[CompressedImage]:
        data = await asyncio.to_thread(image.read_bytes) if isinstance(image, Path) else bytes(image)
        wanted = variants or (Variant(),)
        self.calls.append((data, wanted))
        if not data:
            raise ImageRefused("the file is empty")
        if data in self._refuse:
            raise ImageRefused("the file is no image that is read here")
        return [_made(data, variant) for variant in wanted]


def _made(data: bytes, variant: Variant) -> CompressedImage:
    scale = min(1.0, variant.max_size[0] / 4000, variant.max_size[1] / 3000)
    width, height = max(1, round(4000 * scale)), max(1, round(3000 * scale))
    said = {"of": hashlib.sha256(data).hexdigest(), "size": [width, height], "quality": variant.quality}
    content = json.dumps(said).encode()
    return CompressedImage(
        data=content,
        width=width,
        height=height,
        format=variant.format,
        sha256=hashlib.sha256(content).hexdigest(),
        done=("resized",) if scale < 1 else (),
        source=Source("jpeg", 4000, 3000, len(data), animated=False),
    )
