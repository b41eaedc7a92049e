"""Text that people typed, made fit for a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set as AbstractSet

from errands.kits.documents.errors import DocumentError

# Letters of user text must not turn around the words beside them (Unicode TR 36, 2.1).
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")

JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")
"""What joins letters or chooses their variant, and shows nothing by itself."""

_MOST = 3_000_000
"""Characters of one document: about a thousand pages of plain text."""

# A stretch without a place where a line may end. Where scripts without spaces are mixed in it is found too
# often, which costs a measurement and nothing else.
_LONG = re.compile(r"[^\s\u200b-]{12,}")


class Texts:
    """Takes the texts of one document, one by one, and makes each fit for its page.

    `language` is the document's. `missing`: letters that no font has; a symbol outside words is left out of
    the texts, a letter is refused with the place where it stands.
    """

    def __init__(self, language: str, missing: AbstractSet[str] = frozenset()) -> None:
        self.right_to_left = language.split("-")[0].lower() in {
            "ar",
            "fa",
            "he",
            "ur",
            "ps",
            "yi",
            "dv",
            "ckb",
        }
        self.left_out: set[tuple[str, str]] = set()
        self.foreign: list[str] = []
        self._missing = missing
        self._characters = 0

    def plain(self, text: str, where: str) -> str:
        """`text` in one line, cleaned; `where` tells people where it stands."""
        self._characters += len(text)
        if self._characters > _MOST:
            raise DocumentError(
                f"the document has more than {_MOST:,} characters (at {where}): split it, or export a file "
                "of rows"
            )
        text = clean(text)
        if text.isascii():
            return text
        if not text.isprintable() or not self._missing.isdisjoint(text):
            text = self._without_missing(text, where)
        self.foreign.append(text)
        return text

    def __call__(self, text: str, where: str) -> str | dict[str, object]:
        """`text` as templates show it: plain, or with what has to be known to set it.

        `dir` stands there where its direction is not the document's, `long` where a word may be wider than
        its column.
        """
        text = self.plain(text, where)
        found: dict[str, object] = {}
        if not text.isascii() or self.right_to_left:
            turned = direction(text)
            if turned is not None and (turned == "rtl") != self.right_to_left:
                found["dir"] = turned
        if len(text) > 11 and _LONG.search(text):
            found["long"] = True
        return {"text": text, **found} if found else text

    def paragraphs(self, text: str, where: str) -> list[str | dict[str, object]]:
        """`text` line by line, without the empty ones."""
        return [self(line, where) for line in text.splitlines() if line.strip()]

    def _without_missing(self, text: str, where: str) -> str:
        # A font may draw its own logo for a private character; nobody knows what the writer meant by it.
        here = {letter for letter in text if letter in self._missing or unicodedata.category(letter) == "Co"}
        lost = sorted(letter for letter in here if not is_ornament(letter))
        changed = without(text, here)
        if lost or (here and not changed):
            raise DocumentError(
                f"no font has {', '.join(map(name_of, lost or sorted(here)))} (in the {where}): "
                "give a folder with a font that has it, as in documents.kit(fonts=[...])"
            )
        self.left_out.update((letter, where) for letter in here)
        return changed


def clean(text: str) -> str:
    """`text` in one line and in composed form (NFC), without control characters.

    Joiners stay: Persian and Indic names need them.
    """
    if text.isprintable() and unicodedata.is_normalized("NFC", text):
        return " ".join(text.split())
    text = "".join(
        letter
        for letter in " ".join(unicodedata.normalize("NFC", text).split())
        if letter not in _TURNING and unicodedata.category(letter) not in {"Cc", "Cs"}
    )
    return text.strip()


def direction(text: str) -> str | None:
    """`ltr` or `rtl` by the first letter with a direction (Unicode TR 9, rule P2), None without one."""
    for letter in text:
        found = unicodedata.bidirectional(letter)
        if found in {"L", "R", "AL"}:
            return "ltr" if found == "L" else "rtl"
    return None


def is_ornament(letter: str) -> bool:
    """Whether `letter` is a symbol, such as an emoji, and no part of a word."""
    return unicodedata.category(letter) in {"So", "Sk", "Cf", "Me"} or letter in JOINERS


def without(text: str, letters: AbstractSet[str]) -> str:
    """`text` without `letters`, and without the joiners and variant selectors that clung to them."""
    if not letters:
        return text
    gone = re.compile(f"[{re.escape(''.join(sorted(letters)))}][{''.join(JOINERS)}]*")
    return " ".join(gone.sub("", text).split())


def name_of(letter: str) -> str:
    """How to tell people of a letter that can't be shown: `'ქ' (U+10E5 GEORGIAN LETTER KHAR)`."""
    name = unicodedata.name(letter, "a character without a name")
    return f"{letter!r} (U+{ord(letter):04X} {name})"
