"""How headers are kept and written: as they are, in lines, and encoded only where they must be."""

from __future__ import annotations

import re
from email.policy import EmailPolicy
from typing import Any

_LINE = 78  # characters that a line should have at most (RFC 5322, 2.1.1) …
_MOST = 998  # … and must have
_WORD = re.compile(r" *[^ ]+| +$")


class MailPolicy(EmailPolicy):
    """The standard library's policy, but for words that are longer than a line.

    The library encodes those (RFC 2047), also where nobody may decode them: a long address in
    `List-Unsubscribe` would be none any more. Here they stay whole.
    """

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        """Plain text is parsed when somebody asks for it, which is seldom, and costs more than all else."""
        if type(value) is str and value.isascii() and not name.lower().startswith("content-"):
            if "\r" in value or "\n" in value:
                raise ValueError(f"a line break in the header {name}")
            return name, value
        parsed: tuple[str, Any] = super().header_store_parse(name, value)
        return parsed

    def fold(self, name: str, value: Any) -> str:
        written = _lines(f"{name}: {value}")
        return super().fold(name, value) if written is None else written + self.linesep

    def fold_binary(self, name: str, value: Any) -> bytes:
        written = _lines(f"{name}: {value}")
        if written is None:
            return super().fold_binary(name, value)
        return (written + self.linesep).encode("ascii")


def _lines(header: str) -> str | None:
    """`header` in lines, broken before spaces, so that it is the same when they are put together again; None
    where it has to be encoded."""
    if not header.isascii() or "\r" in header or "\n" in header:
        return None
    if len(header) <= _LINE:
        return header
    # Not right behind the name: some readers take what follows there for nothing.
    name, *words = _WORD.findall(header)
    lines = [name + (words.pop(0) if words else "")]
    for word in words:
        if len(lines[-1]) + len(word) > _LINE and not word.isspace():
            lines.append(word)
        else:
            lines[-1] += word
    return None if max(map(len, lines)) > _MOST else "\r\n".join(lines)
