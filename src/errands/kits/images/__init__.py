"""Images that people upload: made smaller, upright, without what they tell of their makers.

    app.use(images.kit())

    @app.task(queue="images")
    async def shrink(upload: str, *, images: Images, files: Storage) -> str:
        [small] = await images.compress(await files.read(upload), Variant(max_size=(1920, 1080)))
        return (await files.put(small.data, content_type=small.content_type, suffix=small.suffix)).key

Needs `errands[images]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from errands.imaging import ImageBounds, ImageRefused
from errands.kits.images.pillow import LIMITS, PillowImages
from errands.kits.images.provider import CompressedImage, Images, Source, Variant
from errands.kits.images.stored import Outcome, StoredImage, compress_many, compress_stored

if TYPE_CHECKING:
    from errands import Errands
    from errands.children import Limits

__all__ = [
    "CompressedImage",
    "ImageBounds",
    "ImageRefused",
    "Images",
    "ImagesKit",
    "Outcome",
    "PillowImages",
    "Source",
    "StoredImage",
    "Variant",
    "compress_many",
    "compress_stored",
    "kit",
]


class ImagesKit:
    """Gives tasks what they ask for as `Images`."""

    def __init__(
        self, images: Images | None, bounds: ImageBounds | None, limits: Limits, processes: int | None
    ) -> None:
        self._images = images
        self._bounds = bounds
        self._limits = limits
        self._processes = processes

    def install(self, app: Errands) -> None:
        """Called by `app.use(...)`."""
        app.provide(Images, self._make, scope="process")

    def _make(self) -> Images:
        return self._images or PillowImages(self._bounds, limits=self._limits, processes=self._processes)


def kit(
    images: Images | None = None,
    *,
    bounds: ImageBounds | None = None,
    limits: Limits = LIMITS,
    processes: int | None = None,
) -> ImagesKit:
    """The kit for `app.use(...)`: `images`, or else `PillowImages` with the other arguments."""
    return ImagesKit(images, bounds, limits, processes)
