"""Certificate numbers: 128 random bits that people can read to each other."""

from __future__ import annotations

import re
import secrets

# Crockford's base 32: no I, L, O or U, which are misread or make words.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MISREAD = str.maketrans("OIL", "011")
_LENGTH = 26


def new_number() -> str:
    """A number such as `C-7ZK3M-…`, in five groups; nobody can guess another one from it."""
    value = secrets.randbits(128)
    return _grouped("".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5)))


def parse(text: str) -> str | None:
    """The number that somebody typed: with or without hyphens, in any case, O for 0; None if it is none."""
    letters = re.sub(r"[^0-9A-Z]", "", text[:100].upper()).removeprefix("C" if _has_prefix(text) else "")
    letters = letters.translate(_MISREAD)
    return _grouped(letters) if re.fullmatch(f"[{_ALPHABET}]{{{_LENGTH}}}", letters) else None


def _has_prefix(text: str) -> bool:
    return len(re.sub(r"[^0-9A-Za-z]", "", text[:100])) == _LENGTH + 1


def _grouped(letters: str) -> str:
    groups = [letters[start : start + 5] for start in range(0, 20, 5)] + [letters[20:]]
    return "-".join(["C", *groups])
