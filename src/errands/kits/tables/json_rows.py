"""Values of a JSON array, and of JSON lines, one after the other: never more than one row in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from errands.kits.tables.cells import shortened
from errands.kits.tables.errors import FileRefused
from errands.kits.tables.limits import Limits
from errands.kits.tables.raw import Reason

_CHUNK = 64 * 1024  # characters
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER_TO_END = re.compile(r"[-+.0-9eE]*\Z")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_no_number)


def lines(file: TextIO, limits: Limits) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not empty, with the line's number; a `Reason` where it can't be read.

    Args:
        file: opened with `newline="\\n"`.
        limits: how long a line may be; a longer one is passed over.
    """
    number = 0
    while line := file.readline(limits.row + 1):
        number += 1
        if len(line) > limits.row and not line.endswith("\n"):
            while (rest := file.readline(_CHUNK)) and not rest.endswith("\n"):
                pass
            yield number, Reason(None, shortened(line), f"the line has more than {limits.row:,} characters")
            continue
        text = line.strip(" \t\r\n\ufeff")
        if not text:
            continue
        try:
            value = _decoder.decode(text)
        except (ValueError, RecursionError) as error:
            yield number, Reason(None, shortened(text), f"this is no JSON: {_told(error)}")
        else:
            yield number, value


class Array:
    """The values of one JSON array (RFC 8259), decoded while the file is read.

    Args:
        file: the text.
        limits: how many characters one value may have.
    """

    def __init__(self, file: TextIO, limits: Limits) -> None:
        self._file, self._most = file, limits.row
        self._text = ""
        self._at = 0
        self._over = False
        self._number = 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Raises:
        FileRefused: it is no array, or it is broken from some row on.
        """
        if self._next() == "\ufeff":
            self._at += 1
        if self._next() != "[":
            raise FileRefused("the JSON is no list: it must begin with [")
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield from self._values()
        if self._next():
            raise FileRefused(f"something follows the end of the list, after row {self._number}")

    def _values(self) -> Iterator[tuple[int, Any]]:
        while True:
            self._number += 1
            self._next()
            yield self._number, self._value()
            following = self._next()
            self._at += 1
            if following == "]":
                return
            if following != ",":
                what = repr(following) if following else "the end of the file"
                raise FileRefused(f"after row {self._number} comes {what}, where a comma or ] belongs")

    def _next(self) -> str:
        """The next character that is not space; nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Broken, or not there yet: only more of the text can tell.
                if len(self._text) - self._at > self._most:
                    raise FileRefused(
                        f"row {self._number} has more than {self._most:,} characters, or is no JSON: "
                        f"{error.msg}"
                    ) from None
                if not self._more():
                    raise FileRefused(f"row {self._number} is no JSON: {error.msg}") from None
                continue
            except (ValueError, RecursionError) as error:
                raise FileRefused(f"row {self._number}: {_told(error)}") from None
            length = end - self._at
            # A number at the end of what was read may go on: "1" may become "1.5".
            whole = self._text[self._at] in '{["' or not _NUMBER_TO_END.match(self._text, end)
            if whole or not self._more():
                self._at += length
                if length > self._most:
                    return Reason(None, None, f"the row has more than {self._most:,} characters")
                return value

    def _more(self) -> bool:
        """Read on. As much again as is waiting, so that a long row is not looked at again and again."""
        if self._over:
            return False
        waiting = self._text[self._at :]
        read = self._file.read(max(_CHUNK, len(waiting)))
        self._over = not read
        self._text, self._at = waiting + read, 0
        return not self._over


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "lists and objects lie too deep in each other"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error)[:200]
