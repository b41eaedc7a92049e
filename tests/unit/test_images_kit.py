"""The images kit without decoding: what is declared, and images in a storage."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from errands import ConfigurationError, Errands, Settings
from errands.kits import images
from errands.kits.images import ImageBounds, ImageRefused, Images, Variant, compress_many, compress_stored
from errands.kits.images.fake import FakeImages
from errands.kits.storage.fake import MemoryStorage


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"format": "heic"}, "jpeg, webp, avif, png"),
        ({"max_size": (0, 100)}, "1 to 65500"),
        ({"max_size": (100, 20_000), "format": "webp"}, "1 to 16383"),
        ({"quality": 0}, "1 to 100"),
        ({"quality": 101}, "1 to 100"),
    ],
)
def test_a_variant_that_cannot_be_made_is_refused_where_it_is_declared(
    values: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Variant(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_side"])
def test_bounds_are_above_zero(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ImageBounds(**{name: 0})


def test_the_kit_provides_images(tmp_path: Path) -> None:
    app = Errands("photos", settings=Settings(inline=True))
    fake = FakeImages()
    app.use(images.kit(fake))

    @app.task(name="shrink")
    async def shrink(size: int, *, images: Images) -> int:
        [made] = await images.compress(b"a photo", Variant(max_size=(size, size)))
        return made.width

    assert shrink.delay(200).get() == 200
    assert fake.calls[0][0] == b"a photo"


async def _uploaded(files: MemoryStorage, *contents: bytes) -> list[str]:
    return [(await files.put(each, content_type="image/jpeg", suffix=".jpg")).key for each in contents]


async def test_a_stored_upload_is_read_made_and_stored() -> None:
    files, fake = MemoryStorage(), FakeImages()
    [key] = await _uploaded(files, b"a photo")
    sizes = Variant(max_size=(1920, 1080)), Variant(max_size=(96, 96), format="webp")
    large, small = await compress_stored(fake, files, key, *sizes, folder="profiles", unique="user/7")
    assert (large.width, small.width, small.content_type) == (1440, 96, "image/webp")
    assert large.key.startswith("profiles/")
    assert small.key.endswith(".webp")
    assert (await files.info(small.key)).sha256 == small.sha256
    assert await files.read(key) == b"a photo"
    assert large.url is None


async def test_a_second_time_leaves_the_same_files() -> None:
    files = MemoryStorage()
    [key] = await _uploaded(files, b"a photo")
    first = await compress_stored(FakeImages(), files, key)
    assert await compress_stored(FakeImages(), files, key) == first
    assert len(files.files) == 2


async def test_they_may_go_into_another_storage() -> None:
    files, elsewhere = MemoryStorage(), MemoryStorage()
    [key] = await _uploaded(files, b"a photo")
    [stored] = await compress_stored(FakeImages(), files, key, into=elsewhere)
    assert list(files.files) == [key]
    assert list(elsewhere.files) == [stored.key]


async def test_an_upload_that_is_too_large_is_not_read_to_its_end() -> None:
    class Small(FakeImages):
        max_bytes = 1000

    class Endless(MemoryStorage):
        async def stream(self, key: str):  # type: ignore[no-untyped-def]
            while True:
                yield bytes(600)

    with pytest.raises(ImageRefused, match=r"more than 0.0 MB"):
        await compress_stored(Small(), Endless(), "a/b")


async def test_many_are_made_side_by_side_with_an_outcome_each() -> None:
    files = MemoryStorage()
    keys = await _uploaded(files, b"one", b"no image", b"three")
    keys.insert(1, files.key_for("uploads", "nobody uploaded it"))
    at_work = most = 0

    class Counting(FakeImages):
        async def compress(self, image, *variants):  # type: ignore[no-untyped-def]
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            await asyncio.sleep(0)
            at_work -= 1
            return await super().compress(image, *variants)

    outcomes = await compress_many(Counting(refuse=(b"no image",)), files, keys, at_once=2)
    assert [outcome.image for outcome in outcomes] == keys
    assert [bool(outcome.stored) for outcome in outcomes] == [True, False, False, True]
    assert [outcome.refused for outcome in outcomes] == [False, True, True, False]
    assert "no stored file" in str(outcomes[1].error)
    assert most == 2


async def test_an_error_that_may_pass_is_told_apart() -> None:
    class Full(MemoryStorage):
        async def put(self, data, **options):  # type: ignore[no-untyped-def]
            raise OSError(28, "No space left on device")

    files = MemoryStorage()
    [key] = await _uploaded(files, b"one")
    [outcome] = await compress_many(FakeImages(), files, [key], into=Full())
    assert (outcome.refused, outcome.stored) == (False, ())
    assert "No space left" in str(outcome.error)
