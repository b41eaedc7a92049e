"""Images made by Pillow in real child processes: what comes out, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import random
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from errands.children import MIB, ChildCrashed, Limits
from errands.kits.images import CompressedImage, ImageBounds, ImageRefused, PillowImages, Variant
from errands.kits.images.pillow import LIMITS
from pictures import decoded, encoded, photo
from processes import kill_limited_children

RED, GREEN, BLUE, WHITE = (200, 20, 20), (20, 200, 20), (20, 20, 200), (255, 255, 255)


@pytest.fixture
async def images() -> AsyncIterator[PillowImages]:
    made = PillowImages(processes=1)
    yield made
    await made.aclose()


async def one(images: PillowImages, data: bytes, **variant: Any) -> CompressedImage:
    [made] = await images.compress(data, Variant(**variant))
    return made


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, ...], most: int = 12) -> bool:
    found = image.convert("RGB").getpixel(at)
    assert isinstance(found, tuple)
    return all(abs(a - b) <= most for a, b in zip(found, colour, strict=False))


def corners(width: int = 300, height: int = 200) -> Image.Image:
    """Red at the top left, green at the top right, blue at the bottom left, white at the bottom right."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


# -- size


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((4000, 3000), (1920, 1080), (1440, 1080)),
        ((3000, 4000), (1920, 1080), (810, 1080)),
        ((400, 300), (1920, 1080), (400, 300)),
        ((1920, 1080), (1920, 1080), (1920, 1080)),
        ((5000, 3), (100, 100), (100, 1)),
        ((1, 1), (1, 1), (1, 1)),
    ],
)
async def test_it_fits_keeps_its_shape_and_is_not_enlarged(
    images: PillowImages, size: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]
) -> None:
    made = await one(images, encoded(photo(*size)), max_size=box)
    assert (made.width, made.height) == expected
    assert decoded(made.data).size == expected
    assert (made.source.width, made.source.height) == size
    assert ("resized" in made.done) == (expected != size)


async def test_several_variants_come_from_one_call_in_their_order(images: PillowImages) -> None:
    variants = [
        Variant(max_size=(640, 640), format="webp"),
        Variant(max_size=(64, 64)),
        Variant(format="avif"),
    ]
    made = await images.compress(encoded(photo(2000, 1000)), *variants)
    assert [(each.format, each.width, each.height) for each in made] == [
        ("webp", 640, 320), ("jpeg", 64, 32), ("avif", 1920, 960),
    ]  # fmt: skip
    for each in made:
        assert decoded(each.data).format == each.format.upper()
        assert each.content_type == f"image/{each.format}"
        assert each.sha256 == hashlib.sha256(each.data).hexdigest()


async def test_a_path_does_as_well_and_the_same_input_makes_the_same_bytes(
    images: PillowImages, tmp_path: Path
) -> None:
    data = encoded(photo(700, 500))
    (tmp_path / "no-suffix").write_bytes(data)
    [first], [second] = await images.compress(tmp_path / "no-suffix"), await images.compress(data)
    assert first.data == second.data


async def test_quality_decides_about_the_size_of_the_file(images: PillowImages) -> None:
    data = encoded(photo(800, 600), "PNG")
    sizes = [(await one(images, data, quality=quality)).size for quality in (20, 50, 85, 95)]
    assert sizes == sorted(sizes)


async def test_it_looks_as_it_did(images: PillowImages) -> None:
    """Decoding at a part of the size must not be seen: compared with the long way."""
    import numpy

    original = photo(4000, 3000)
    made = await one(images, encoded(original, quality=95))
    expected = original.resize((1440, 1080), Image.Resampling.LANCZOS)
    difference = numpy.asarray(decoded(made.data), float) - numpy.asarray(expected, float)
    assert (difference**2).mean() < 25  # a PSNR of 34 dB


# -- upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
async def test_it_stands_as_the_camera_saw_it(images: PillowImages, orientation: int, form: str) -> None:
    from PIL.Image import Transpose as T

    # What a camera that was held so stores: the inverse of what a viewer does.
    stored = {
        1: None, 2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE,
        6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270,
    }[orientation]  # fmt: skip
    picture = corners(1200, 800)
    held = picture.transpose(stored) if stored is not None else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = await one(images, encoded(held, form, exif=exif.tobytes()), max_size=(300, 300))
    shown = decoded(made.data)
    assert shown.size == (300, 200)
    assert (made.source.width, made.source.height) == (1200, 800)
    for at, colour in (((20, 20), RED), ((280, 20), GREEN), ((20, 180), BLUE), ((280, 180), WHITE)):
        assert near(shown, at, colour)
    assert ("turned" in made.done) == (orientation != 1)
    assert 0x0112 not in shown.getexif()


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
async def test_broken_metadata_does_not_matter(images: PillowImages, exif: bytes) -> None:
    made = await one(images, encoded(corners(), exif=exif))
    assert (made.width, made.height) == (300, 200)


# -- what it tells of its makers


@pytest.mark.parametrize("target", ["jpeg", "webp", "avif", "png"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
async def test_nothing_but_pixels_is_kept(images: PillowImages, form: str, target: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "CANARY camera"
    exif.get_ifd(0x8825)[29] = "CANARY day"
    options: dict[str, Any] = {"exif": exif.tobytes()} if form != "TIFF" else {"exif": exif}
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "CANARY author")
        text.add_itxt("XML:com.adobe.xmp", "CANARY xmp")
        options["pnginfo"] = text
    elif form == "JPEG":
        options |= {"comment": b"CANARY comment", "xmp": b"CANARY xmp"}
    elif form == "WEBP":
        options["xmp"] = b"CANARY xmp"
    data = encoded(corners(), form, **options)
    assert b"CANARY" in data
    made = await one(images, data, format=target)
    assert b"CANARY" not in made.data
    assert not {"exif", "xmp", "comment", "icc_profile"} & set(decoded(made.data).info)
    assert "metadata_removed" in made.done or form == "TIFF"


@pytest.mark.parametrize(
    "hidden",
    [b"<html><script>alert(1)</script>", b"PK\x03\x04 an archive", b"%PDF-1.7 a document", b"MZ a program"],
)
async def test_what_is_hidden_behind_an_image_does_not_come_along(
    images: PillowImages, hidden: bytes
) -> None:
    made = await one(images, encoded(corners(), comment=hidden) + hidden * 3)
    assert hidden not in made.data
    assert decoded(made.data).size == (300, 200)


# -- transparency, colours, depth


@pytest.mark.parametrize("target", ["webp", "avif", "png"])
async def test_transparency_stays_where_there_is_such(images: PillowImages, target: str) -> None:
    picture = Image.new("RGBA", (200, 100), (200, 20, 20, 0))
    picture.paste((20, 20, 200, 255), (0, 0, 100, 100))
    shown = decoded((await one(images, encoded(picture, "PNG"), format=target, max_size=(100, 100))).data)
    assert shown.mode == "RGBA"
    assert shown.getpixel((80, 25))[3] == 0  # type: ignore[index]
    assert shown.getpixel((20, 25))[3] == 255  # type: ignore[index]


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
async def test_in_a_jpeg_what_was_transparent_is_white(images: PillowImages, form: str) -> None:
    picture = Image.new("RGBA", (200, 100), (0, 0, 0, 0))
    picture.paste((20, 20, 200, 255), (0, 0, 100, 100))
    made = await one(images, encoded(picture, form))
    shown = decoded(made.data)
    assert near(shown, (150, 50), WHITE)
    assert near(shown, (50, 50), BLUE, 20)
    assert "flattened" in made.done


async def test_a_transparency_that_hides_nothing_goes(images: PillowImages) -> None:
    made = await one(images, encoded(corners().convert("RGBA"), "PNG"), format="png")
    assert decoded(made.data).mode == "RGB"
    assert "flattened" not in made.done


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGB", "BMP"),
        ("RGB", "AVIF"),
        ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF"), ("RGBA", "TIFF"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["jpeg", "webp", "avif", "png"])
async def test_every_kind_of_image_becomes_every_kind(
    images: PillowImages, mode: str, form: str, target: str
) -> None:
    picture = corners()
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")  # type: ignore[assignment]
    elif mode == "P":
        picture = picture.quantize(16)
    else:
        picture = picture.convert(mode)
    shown = decoded((await one(images, encoded(picture, form), format=target)).data)
    assert near(shown, (280, 180), WHITE, 16)
    if mode not in ("1", "L", "LA"):
        for at, colour in (((20, 20), RED), ((280, 20), GREEN), ((20, 180), BLUE)):
            assert near(shown, at, colour, 40 if mode == "CMYK" else 20)


async def test_sixteen_bits_become_eight_with_the_same_shades(images: PillowImages) -> None:
    picture = Image.new("I;16", (64, 64), 128 * 256)
    made = await one(images, encoded(picture, "PNG"), format="png")
    assert decoded(made.data).mode == "L"
    assert decoded(made.data).getpixel((5, 5)) == 128
    assert "8_bit" in made.done


@pytest.mark.parametrize("mode", ["I", "F"])
async def test_measurements_are_refused(images: PillowImages, mode: str) -> None:
    with pytest.raises(ImageRefused, match="32 bits a pixel"):
        await one(images, encoded(Image.new(mode, (20, 20)), "TIFF"))


def other_colours() -> bytes:
    """A profile whose red is sRGB's blue, and the other way round."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"?XYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"?XYZ", b"bXYZ", 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
async def test_colours_are_brought_into_srgb(images: PillowImages, form: str) -> None:
    made = await one(images, encoded(Image.new("RGB", (60, 60), RED), form, icc_profile=other_colours()))
    assert near(decoded(made.data), (30, 30), BLUE, 20)
    assert "srgb" in made.done
    assert "icc_profile" not in decoded(made.data).info


@pytest.mark.parametrize(
    "profile",
    [b"no profile", b"\0" * 200, random.Random(1).randbytes(5 * MIB)],
    ids=["text", "zeros", "huge"],
)
async def test_a_profile_that_cannot_be_used_is_left_out(images: PillowImages, profile: bytes) -> None:
    data = encoded(corners(), "JPEG", icc_profile=profile)
    made = await one(images, data)
    assert "profile_ignored" in made.done
    assert near(decoded(made.data), (20, 20), RED)


async def test_a_profile_of_other_colours_than_the_image_is_left_out(images: PillowImages) -> None:
    made = await one(images, encoded(corners().convert("CMYK"), "JPEG", icc_profile=other_colours()))
    assert "profile_ignored" in made.done
    assert near(decoded(made.data), (20, 20), RED, 40)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
async def test_of_an_animation_the_first_frame_is_taken_and_told_so(images: PillowImages, form: str) -> None:
    frames = [Image.new("RGB", (80, 60), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    made = await one(images, data)
    assert made.source.animated
    assert "first_frame" in made.done
    assert near(decoded(made.data), (40, 30), RED, 20)
    assert not getattr(decoded(made.data), "is_animated", False)


# -- refused


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty"),
        (b"%PDF-1.7\n%...", "but a PDF"),
        (b"  <!DOCTYPE html><script>alert(1)</script>", "a web page"),
        (b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC photo; send it as JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "a film"),
        (b"#!/bin/sh\nrm -rf /", "a script"),
        (b"MZ\x90\0", "a program"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run", "something else"),
        (b"just a text", "something else"),
    ],
)
async def test_fakes_are_refused_by_what_they_are(images: PillowImages, data: bytes, text: str) -> None:
    with pytest.raises(ImageRefused, match=text):
        await images.compress(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
async def test_a_truncated_file_is_refused(images: PillowImages, form: str, part: float) -> None:
    data = encoded(photo(400, 300), form)
    with pytest.raises(ImageRefused, match="damaged"):
        await images.compress(data[: int(len(data) * part)])


def png(width: int, height: int, *, colour: int = 2, rows: bytes = b"", chunks: bytes = b"") -> bytes:
    """A PNG with a header that says what it likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (png(8000, 8000), "more than 50 megapixels"),
        (png(60_000, 60_000), "more than 50 megapixels"),
        (png(700_000, 1), "a side has 65500 at the most"),
        (png(2**31 - 1, 2**31 - 1), "more than 50 megapixels"),
        (png(6000, 6000, colour=0, rows=bytes(6001 * 20)), "unpacks to far more"),
        (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";", "damaged|megapixels"),
    ],
)
async def test_bombs_are_refused_by_what_they_claim(images: PillowImages, data: bytes, text: str) -> None:
    with pytest.raises(ImageRefused, match=text):
        await images.compress(data)


async def test_text_that_unpacks_to_gigabytes_is_refused(images: PillowImages) -> None:
    packed = b"Comment\0\0" + zlib.compress(bytes(200 * MIB), 9)
    chunk = (
        struct.pack("!I", len(packed)) + b"zTXt" + packed + struct.pack("!I", zlib.crc32(b"zTXt" + packed))
    )
    with pytest.raises(ImageRefused):
        await images.compress(png(10, 10, rows=bytes(310), chunks=chunk * 8))


async def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    images = PillowImages(ImageBounds(max_bytes=1000))
    (tmp_path / "large").write_bytes(encoded(photo(300, 300)))
    for image in (tmp_path / "large", (tmp_path / "large").read_bytes()):
        with pytest.raises(ImageRefused, match=r"MB are the most"):
            await images.compress(image)
    await images.aclose()


async def test_an_image_that_needs_more_memory_than_there_is_harms_nobody_else() -> None:
    images = PillowImages(limits=Limits(memory=128 * MIB), processes=1)
    good, large = encoded(corners()), encoded(Image.new("RGB", (6000, 6000), RED), "PNG")
    await images.compress(good)
    with pytest.raises(ImageRefused, match="more memory"):
        await images.compress(large)
    assert (await images.compress(good))[0].width == 300
    await images.aclose()


async def test_the_largest_image_that_is_allowed_fits_into_the_memory() -> None:
    images = PillowImages(limits=LIMITS, processes=1)
    picture = Image.new("RGBA", (7071, 7071), (200, 20, 20, 128))
    picture.paste(photo(1500, 1500), (0, 0))
    made = await one(images, encoded(picture, "PNG", compress_level=1), format="webp")
    assert (made.width, made.height) == (1080, 1080)
    await images.aclose()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF"])
async def test_whatever_is_changed_in_a_file_it_is_made_or_refused(images: PillowImages, form: str) -> None:
    """Forty files of each kind with bytes changed at random, the same ones in each run."""
    whole = encoded(photo(120, 90), form)
    seeded = random.Random(form)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(seeded.choice((1, 4, 30))):
            data[seeded.randrange(seeded.choice((40, len(data))))] = seeded.randrange(256)
        with suppress(ImageRefused):
            made = await one(images, bytes(data))
            assert decoded(made.data).size == (made.width, made.height)


async def test_images_are_made_side_by_side() -> None:
    images = PillowImages(processes=2)
    made = await asyncio.gather(*(images.compress(encoded(photo(600, 400, seed))) for seed in range(6)))
    assert len({each.sha256 for [each] in made}) == 6
    await images.aclose()


async def test_a_process_that_the_system_kills_is_no_fault_of_the_image(images: PillowImages) -> None:
    call = asyncio.ensure_future(images.compress(encoded(photo(3000, 2000))))
    await asyncio.to_thread(kill_limited_children, call.done)
    with pytest.raises(ChildCrashed) as caught:
        await call
    assert caught.value.may_pass


async def test_an_image_that_computes_for_too_long_is_refused() -> None:
    images = PillowImages(limits=Limits(memory=768 * MIB, cpu_seconds=1), processes=1)
    data = encoded(photo(3000, 3000), "PNG", compress_level=1)
    sizes = [Variant(max_size=(3000 - number, 3000), format="avif", quality=100) for number in range(4)]
    with pytest.raises(ImageRefused, match="more memory or time"):
        await images.compress(data, *sizes)
    await images.aclose()


def test_profiles_of_tests_are_read_by_the_library() -> None:
    described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(other_colours())))
    assert described.startswith("xRGB")
