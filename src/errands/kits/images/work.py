"""What is done to an image, in a child process: one decode, any number of variants."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

from errands.imaging import ImageBounds, damaged, eight_bit, open_image, orientation, upright

_MOST_PROFILE = 4 * 1024 * 1024  # bytes; a press's has 2 MiB, a camera's 3 KiB
_SIDEWAYS = frozenset((5, 6, 7, 8))
# An image is first brought to so many times the size of the result by averaging; more is finer and slower.
_GAP = 3.0

_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 4},
    "avif": {"speed": 7, "max_threads": 1},
    "png": {"optimize": False},
}


def compress(data: bytes, bounds: dict[str, int], variants: list[dict[str, Any]]) -> dict[str, Any]:
    """The variants of the image in `data`: what it was, and for each the bytes, the size, what was done."""
    image = open_image(data, ImageBounds(**bounds))
    turn = orientation(image)
    width, height = image.size
    sideways = turn in _SIDEWAYS
    source = {
        "format": "jpeg" if image.format == "MPO" else str(image.format).lower(),
        "width": height if sideways else width,
        "height": width if sideways else height,
        "animated": _is_animated(image),
    }
    # Boxes are for the image as it is seen; until it is turned, they lie as it does.
    boxes = [tuple(reversed(each["max_size"])) if sideways else tuple(each["max_size"]) for each in variants]
    sizes = [_fitting(image.size, box) for box in boxes]
    largest = (max(size[0] for size in sizes), max(size[1] for size in sizes))
    done = ["first_frame"] if source["animated"] else []
    with damaged("it ends too early, or its data is broken"):
        # A JPEG can be decoded at a half, a quarter or an eighth of its size, for as much of the cost.
        image.draft(None, largest)
        image.load()
        done += ["metadata_removed"] if _has_metadata(image) else []
        profile = image.info.get("icc_profile")
        picture = _plain(image, done)
    colours = _Colours(picture.mode, profile)
    made = []
    for variant, size in zip(variants, sizes, strict=True):
        made.append(_variant(picture, variant, size, turn, colours, [*done], (width, height)))
    return {"source": source, "variants": made}


def _variant(
    picture: Image.Image,
    variant: dict[str, Any],
    size: tuple[int, int],
    turn: int,
    colours: _Colours,
    done: list[str],
    before: tuple[int, int],
) -> dict[str, Any]:
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=_GAP)
    if size != before:
        done.append("resized")
    if turn != 1:
        picture = upright(picture, turn)
        done.append("turned")
    picture = colours.standard(picture, done)
    if variant["format"] == "jpeg" and picture.mode in ("LA", "RGBA"):
        picture = _on_white(picture)
        done.append("flattened")
    options = _OPTIONS[variant["format"]]
    if variant["format"] != "png":
        options = {**options, "quality": variant["quality"]}
    file = BytesIO()
    # Without what the file said about itself: where it was taken, by whom, with which program.
    picture.info = {}
    picture.save(file, variant["format"].upper(), **options)
    return {"data": file.getvalue(), "width": picture.width, "height": picture.height, "done": done}


def _is_animated(image: Image.Image) -> bool:
    if image.format in ("MPO", "TIFF"):  # more pictures than one, which are no film
        return False
    with damaged("its second frame can't be read"):
        return bool(getattr(image, "is_animated", False))


def _fitting(size: tuple[int, int], box: tuple[int, ...]) -> tuple[int, int]:
    """The largest size of the same shape inside of `box`, and not larger than `size`."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _has_metadata(image: Image.Image) -> bool:
    kinds: Iterable[str] = ("exif", "xmp", "photoshop", "comment", "iptc", "XML:com.adobe.xmp")
    return any(image.info.get(kind) for kind in kinds) or bool(getattr(image, "text", None))


def _plain(image: Image.Image, done: list[str]) -> Image.Image:
    """One frame in L, LA, RGB, RGBA, CMYK or LAB."""
    picture = eight_bit(image)
    if picture is not image:
        done.append("8_bit")
    if picture.mode in ("LA", "RGBA"):
        return _without_idle_alpha(picture)
    if "transparency" in picture.info or picture.mode in ("PA", "La", "RGBa"):
        return _without_idle_alpha(picture.convert("RGBA"))
    return picture if picture.mode in ("L", "RGB", "CMYK", "LAB") else picture.convert("RGB")


def _without_idle_alpha(picture: Image.Image) -> Image.Image:
    """Without a transparency that hides nothing."""
    if picture.getchannel("A").getextrema() == (255, 255):
        return picture.convert(picture.mode.removesuffix("A"))
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    alpha = picture.getchannel("A")
    opaque = picture.convert(picture.mode.removesuffix("A"))
    white = Image.new(opaque.mode, picture.size, "white")
    white.paste(opaque, mask=alpha)
    return white


class _Colours:
    """Brings pictures into sRGB, the colours of everything that has no profile."""

    def __init__(self, mode: str, profile: bytes | None) -> None:
        self._note = ""
        self._profile: ImageCms.ImageCmsProfile | None = None
        if not profile:
            return
        if len(profile) > _MOST_PROFILE:
            self._note = "profile_ignored"
            return
        try:
            found = ImageCms.ImageCmsProfile(BytesIO(profile))
            described = ImageCms.getProfileDescription(found)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            self._note = "profile_ignored"
            return
        if mode in ("RGB", "RGBA") and described.startswith("sRGB"):
            return
        self._profile = found

    def standard(self, picture: Image.Image, done: list[str]) -> Image.Image:
        """`picture` in sRGB, in L, LA, RGB or RGBA."""
        if self._profile is not None:
            try:
                converted = self._by_profile(picture, self._profile)
            except (ImageCms.PyCMSError, ValueError):  # a profile of other colours than the picture's
                done.append("profile_ignored")
            else:
                done.append("srgb")
                return converted
        elif self._note:
            done.append(self._note)
        if picture.mode == "LAB":
            done.append("srgb")
            return self._by_profile(picture, ImageCms.createProfile("LAB"))
        if picture.mode == "CMYK":
            done.append("srgb")
            return picture.convert("RGB")
        return picture

    @staticmethod
    def _by_profile(picture: Image.Image, profile: Any) -> Image.Image:
        alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
        grey = picture.mode in ("L", "LA")
        opaque = picture.convert(picture.mode.removesuffix("A")) if alpha else picture
        converted = ImageCms.profileToProfile(
            opaque, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        if converted is None:
            raise ValueError("no picture came back")
        if grey:
            converted = converted.convert("L")
        if alpha:
            converted.putalpha(alpha)
        return converted
