"""What every maker of images does: Pillow, and the fake for users' tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from errands.kits.images import ImageRefused, Images, PillowImages, Variant
from errands.kits.images.fake import FakeImages
from pictures import encoded, photo


@pytest.fixture(scope="module")
def picture() -> bytes:
    return encoded(photo(4000, 3000))


@pytest.fixture(params=["pillow", "fake"])
async def images(request: pytest.FixtureRequest) -> AsyncIterator[Images]:
    if request.param == "fake":
        yield FakeImages(refuse=(b"no image",))
    else:
        pillow = PillowImages(processes=1)
        yield pillow
        await pillow.aclose()


async def test_by_default_it_is_a_jpeg_for_a_screen(images: Images, picture: bytes) -> None:
    [made] = await images.compress(picture)
    assert (made.width, made.height, made.format) == (1440, 1080, "jpeg")
    assert (made.content_type, made.suffix) == ("image/jpeg", ".jpg")
    assert made.size == len(made.data) > 0
    assert made.sha256 == hashlib.sha256(made.data).hexdigest()
    assert made.done == ("resized",)
    assert (made.source.width, made.source.height, made.source.size) == (4000, 3000, len(picture))


async def test_variants_come_in_their_order(images: Images, picture: bytes, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(picture)
    variants = Variant(max_size=(300, 300), format="webp"), Variant(max_size=(4000, 4000), format="png")
    made = await images.compress(tmp_path / "upload", *variants)
    assert [(each.width, each.height, each.suffix) for each in made] == [
        (300, 225, ".webp"),
        (4000, 3000, ".png"),
    ]
    assert made[1].done == ()


@pytest.mark.parametrize("data", [b"", b"no image"])
async def test_what_is_no_image_is_refused(images: Images, data: bytes) -> None:
    with pytest.raises(ImageRefused):
        await images.compress(data)
    assert images.max_bytes > 1_000_000
