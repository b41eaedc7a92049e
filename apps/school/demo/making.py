"""What the demo uploads, made on the spot: a photo, a letter, a list of students with mistakes."""

from __future__ import annotations

import csv
import io

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 3000, 2000  # pixels of the photo, as its camera held it

LETTER = """Dear teachers,

please excuse my daughter Miriam from the lesson on Tuesday,
14 October 2025. She had a fever of 38.9 degrees and stayed in bed.
She will make up the missed exercise in map reading on Saturday.

With kind regards,
Samuel Adeyemi"""

GOOD, BAD = 203, 37
# What is wrong, in so many rows: 37 of them.
_MISTAKES = (
    (17, "not-an-address", "Nora Field", "yes"),
    (9, "student@", "Nora Field", "yes"),
    (6, "", "Nora Field", "yes"),
    (3, "nora.{n}@example.com", "", "yes"),
    (2, "nora.{n}@example.com", "Nora Field", "perhaps"),
)


def photo() -> bytes:
    """A JPEG of a hill in the evening, as a camera makes it: large, lying on its side, signed."""
    sky = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    image = Image.merge(
        "RGB", (sky, sky.point(lambda light: 90 + light // 3), sky.point(lambda light: 255 - light))
    )
    draw = ImageDraw.Draw(image)
    draw.ellipse((2050, 950, 2450, 1350), fill=(255, 214, 102))
    draw.polygon(
        [(0, 1750), (900, 1100), (1700, 1600), (2300, 1300), (3000, 1650), (3000, 2000), (0, 2000)],
        fill=(24, 48, 40),
    )
    grain = Image.effect_noise((WIDTH, HEIGHT), 24).convert("RGB")
    exif, made = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    Image.blend(image, grain, 0.12).save(made, "JPEG", quality=92, exif=exif)
    return made.getvalue()


def letter() -> bytes:
    """A PNG of the letter, as a scanner sees it. The font comes with Pillow."""
    page, made = Image.new("L", (1700, 900), 250), io.BytesIO()
    font = ImageFont.load_default(46)
    ImageDraw.Draw(page).multiline_text((90, 80), LETTER, fill=25, font=font, spacing=34)
    page.save(made, "PNG")
    return made.getvalue()


def students() -> bytes:
    """A CSV of 240 students, of whom 37 cannot be entered. The good ones are the same every time."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["email", "full name", "active"])
    bad = [row for count, *row in _MISTAKES for _ in range(count)]
    for number in range(GOOD):
        rows.writerow([f"listed.{number:03}@example.com", f"Listed Student {number:03}", "yes"])
        if number % 5 == 0 and bad:
            email, name, active = bad.pop()
            rows.writerow([email.format(n=number), name, active])
    return out.getvalue().encode()
