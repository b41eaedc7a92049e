"""One readable stream out of the output of many processes: a coloured name before each line."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
NAME_WIDTH = 12
SCREEN_WIDTH = 110
# Kept on disk for each process: this many bytes, and as many once more from before.
LOG_BYTES = 5_000_000
# Terminal escape sequences, and every control character but the tab: a log line must not move the cursor.
UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Screen(Console):
    """A console that falls silent, instead of ending the program, when its reader has gone."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Logs:
    """Prints the lines of all processes and appends each to its process's own file.

    Colours appear on a terminal, unless `NO_COLOR` is set. When nobody reads the output any more
    (`errands up | head`), `unread` turns true and printing stops.
    """

    def __init__(self, folder: Path, output: TextIO | None = None) -> None:
        self.folder = folder
        self.console = _Screen(file=output or sys.stdout, soft_wrap=True, highlight=False)
        if not self.console.is_terminal:
            # Nothing says how wide a file or a pipe is.
            self.console.width = SCREEN_WIDTH
        self._colours: dict[str, str] = {}
        self._files: dict[str, TextIO] = {}
        self._writing = threading.Lock()

    def line(self, name: str, text: str) -> None:
        """One line of the process `name`."""
        self._write(name, UNPRINTABLE.sub("", text.rstrip()), style="")

    def say(self, text: str, *, problem: bool = False) -> None:
        """One line of the local run's own."""
        self._write("errands", text, style="bold red" if problem else "bold")

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _write(self, name: str, text: str, *, style: str) -> None:
        with self._writing:
            self._append(name, text)
            prefix = Text(f"{name:<{NAME_WIDTH}} | ", style=self._colour(name))
            self.console.print(prefix.append(text, style=style or "default"))

    def show(self, screen: RenderableType) -> None:
        """Shows something that Rich can render, between the lines."""
        with self._writing:
            self.console.print(screen, soft_wrap=False)

    @property
    def unread(self) -> bool:
        """Whether the reader of the output has gone."""
        return self.console.quiet

    def _append(self, name: str, text: str) -> None:
        file = self._files.get(name)
        if file is None:
            path = self.folder / f"{name}.log"
            if path.exists() and path.stat().st_size > LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
            file = self._files[name] = path.open("a", encoding="utf-8", errors="replace", buffering=1)
        file.write(text + "\n")
        if file.tell() > LOG_BYTES:
            file.close()
            del self._files[name]

    def _colour(self, name: str) -> str:
        if name == "errands":
            return "bold white"
        if name not in self._colours:
            self._colours[name] = COLOURS[len(self._colours) % len(COLOURS)]
        return self._colours[name]
