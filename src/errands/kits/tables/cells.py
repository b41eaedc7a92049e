"""Texts in cells: which a spreadsheet would run, and how they are made harmless (OWASP, CSV injection).

A text that begins with `=`, `+`, `-`, `@`, their full-width forms, a tab, CR or LF gets an apostrophe in
front, which spreadsheets read as "this is text". Reading takes it away again: what we write comes back as it
was, apostrophes of its own included.
"""

from __future__ import annotations

import re

# What a spreadsheet may take for the beginning of a formula, or skip before one.
_RISKY = "=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n"
_RUNS = re.compile(f"'*[{_RISKY}]")
_ESCAPED = re.compile(f"'+[{_RISKY}]")
_NEGATIVE = re.compile(r"-[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def neutral(text: str) -> str:
    """`text` as a cell that no spreadsheet runs. A plain negative number stays one."""
    if not text or text[0] not in "'=+-@\uff1d\uff0b\uff0d\uff20\t\r\n":
        return text
    if _RUNS.match(text) and not _NEGATIVE.fullmatch(text):
        return "'" + text
    return text


def plain(cell: str) -> str:
    """The text that `neutral` made `cell` of; any other as it is."""
    if cell[:1] == "'" and _ESCAPED.match(cell):
        return cell[1:]
    return cell


def shortened(value: object, most: int = 80) -> str:
    """`value` in at most `most` characters, for people: one line, the rest as an ellipsis."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "\ufffd" for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"
