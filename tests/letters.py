"""Letters for tests and benchmarks of OCR: texts of ours, drawn as scans and photographs, by seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy
from PIL import Image, ImageDraw, ImageFilter, ImageFont

KINDS = ("clean", "skewed", "steep", "noisy", "low", "tiny", "photo")
"""As it left the printer at 300 dpi; turned by 2 degrees; by 5; with grain and specks; at 100 dpi; at 75; as
a camera sees it: lit from one side, a little out of focus, in perspective."""

_FONTS = (
    "ofl/notoserif/NotoSerif[wdth,wght].ttf",
    "ofl/notosans/NotoSans[wdth,wght].ttf",
    "ofl/sourceserif4/SourceSerif4[opsz,wght].ttf",
    "ofl/inter/Inter[opsz,wght].ttf",
)
_WIDTH, _HEIGHT = 2480, 1753  # half a page of A4 at 300 dpi
_SIZE = 46  # 11 points

LETTERS = (
    """Dear Ms. Okafor,

please excuse the absence of my daughter Miriam from the drill on Tuesday, 14 October 2025. She had a
fever of 38.9 degrees, and Dr. Lindqvist asked her to stay in bed until Thursday. His certificate
(No. 4471-B) is attached.

Miriam will make up the missed exercise in map reading on Saturday at 9:30, if that suits you.

With kind regards,
Samuel Adeyemi-Brandt
Telephone 555 0147""",
    """To the commander of the second platoon

Sir,

I was late for roll call on 3 March because the 7:15 train from Westbury was cancelled; the next one
left at 8:05. The railway has confirmed this in writing (reference WX/20931). I regret that Cadet Quinn
had to wait for the keys, and have given a second set to the guard room, so that it does not happen
again.

Yours faithfully,
Josephine Vargas, Cadet First Class""",
    """RIVERSIDE SCHOOL
Office of the Registrar

Receipt

Received from Mrs. Hanna Zielinska the sum of $1,284.50 for tuition, spring term 2026, and $36.00 for
two books: "A Field Guide to Mosses" and "Geometry, Step by Step". Balance due: $0.00.

Questions? Write to office@riverside.example, or call between 8 and 12 o'clock.""",
    """Dear parents,

on Friday, 22 May, both classes of the ninth grade visit the observatory. We leave from the north gate
at 18:45 sharp and are back by 23:30. Please give your child a warm jacket, a bottle of water and $7 for
the ticket. Mobile telephones stay in the bus: their light would spoil the view of Jupiter for
everybody.

If the sky is covered, we shall go one week later. Whether we go is on the school's page from noon.

Friedrich Yamamoto and Grace Whitfield""",
)


@dataclass(frozen=True)
class Letter:
    """A letter as an image, and what is written on it."""

    kind: str
    number: int
    text: str
    image: Image.Image


def letter(number: int, kind: str, seed: int = 1) -> Letter:
    """Letter `number` (any; they repeat) as `kind` of image."""
    chance = random.Random(f"{number} {kind} {seed}")
    noise = numpy.random.default_rng(chance.getrandbits(32))
    text = LETTERS[number % len(LETTERS)]
    page = _drawn(text, _FONTS[number % len(_FONTS)])
    if kind in ("skewed", "steep"):
        angle = chance.choice((-1, 1)) * (2.0 if kind == "skewed" else 5.0)
        page = page.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255)
    elif kind == "noisy":
        page = _noisy(page, noise)
    elif kind in ("low", "tiny"):
        times = 3 if kind == "low" else 4
        page = page.resize((_WIDTH // times, _HEIGHT // times), Image.Resampling.LANCZOS)
    elif kind == "photo":
        page = _photographed(page, noise, chance)
    elif kind != "clean":
        raise ValueError(f"there is no kind {kind!r} of letter")
    return Letter(kind, number, text, page)


def error_rate(found: str, text: str) -> float:
    """Characters to insert, delete or change to come from one text to the other, over those of `text`.

    White space counts as one space, wherever lines end.
    """
    a, b = " ".join(found.split()), " ".join(text.split())
    row = numpy.arange(len(b) + 1)
    letters = numpy.array([ord(letter) for letter in b])
    steps = numpy.arange(len(b) + 1)
    for letter in a:
        best = numpy.minimum(row[1:] + 1, row[:-1] + (letters != ord(letter)))
        best = numpy.concatenate(([row[0] + 1], best))
        # An insertion costs one more than the place before it, whichever that is.
        row = numpy.minimum.accumulate(best - steps) + steps
    return float(row[-1]) / max(1, len(b))


def _drawn(text: str, name: str) -> Image.Image:
    spec = find_spec("justmytype_western_core")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "letters are drawn with the fonts of justmytype-western-core, which is not installed"
        )
    font = ImageFont.truetype(str(Path(spec.origin).parent / "fonts" / name), _SIZE)
    page = Image.new("L", (_WIDTH, _HEIGHT), 255)
    ImageDraw.Draw(page).multiline_text((150, 130), text, fill=20, font=font, spacing=26)
    return page


def _noisy(page: Image.Image, noise: numpy.random.Generator) -> Image.Image:
    shades = numpy.asarray(page, dtype=numpy.float32)
    shades = shades * 0.85 + 25 + noise.normal(0, 22, shades.shape)
    specks = noise.random(shades.shape)
    shades[specks < 0.002] = 0
    shades[specks > 0.998] = 255
    return Image.fromarray(shades.clip(0, 255).astype(numpy.uint8)).filter(ImageFilter.GaussianBlur(0.8))


def _photographed(page: Image.Image, noise: numpy.random.Generator, chance: random.Random) -> Image.Image:
    lean = chance.uniform(20, 45)
    corners = (-lean, -lean / 2, 0, _HEIGHT + lean, _WIDTH + lean, _HEIGHT, _WIDTH + lean / 3, -lean)
    paper = Image.new("L", (_WIDTH, _HEIGHT), 235)
    paper.paste(page.point(lambda shade: shade * 0.92))
    seen = paper.transform((_WIDTH, _HEIGHT), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC, fill=1)
    shades = numpy.asarray(seen.filter(ImageFilter.GaussianBlur(1.6)), dtype=numpy.float32)
    light = numpy.linspace(1.0, chance.uniform(0.45, 0.6), _WIDTH)[None, :]
    light = light * numpy.linspace(1.0, 0.85, _HEIGHT)[:, None]
    shades = shades * light + noise.normal(0, 6, shades.shape)
    grey = Image.fromarray(shades.clip(0, 255).astype(numpy.uint8))
    small = grey.resize((1654, 1169), Image.Resampling.BICUBIC)
    return Image.merge("RGB", (small, small.point(lambda s: s * 0.97), small.point(lambda s: s * 0.88)))
