"""Text that people typed, made fit for a page."""

from __future__ import annotations

import re
import unicodedata

# Letters of user text must not turn around the words beside them (Unicode TR 36, 2.1).
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")

JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")
"""What joins letters or chooses their variant, and shows nothing by itself."""


def clean(text: str) -> str:
    """`text` in one line and in composed form (NFC), without control characters.

    Joiners stay: Persian and Indic names need them.
    """
    text = "".join(
        letter
        for letter in " ".join(unicodedata.normalize("NFC", text).split())
        if letter not in _TURNING and unicodedata.category(letter) not in {"Cc", "Cs"}
    )
    return text.strip()


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction goes to the left (Unicode TR 9, rule P2)."""
    for letter in text:
        direction = unicodedata.bidirectional(letter)
        if direction in {"L", "R", "AL"}:
            return direction != "L"
    return False


def is_ornament(letter: str) -> bool:
    """Whether `letter` is a symbol, such as an emoji, and no part of a word."""
    return unicodedata.category(letter) in {"So", "Sk", "Cf", "Me"} or letter in JOINERS


def without(text: str, letters: set[str]) -> str:
    """`text` without `letters`, and without the joiners and variant selectors that clung to them."""
    if not letters:
        return text
    gone = re.compile(f"[{re.escape(''.join(sorted(letters)))}][{''.join(JOINERS)}]*")
    return " ".join(gone.sub("", text).split())


def name_of(letter: str) -> str:
    """How to tell people of a letter that can't be shown: `'ქ' (U+10E5 GEORGIAN LETTER KHAR)`."""
    name = unicodedata.name(letter, "a character without a name")
    return f"{letter!r} (U+{ord(letter):04X} {name})"
