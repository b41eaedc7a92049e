"""The supervisor's side of the watchdog: tells it which process groups there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from errands.doors.local import watchdog


class Watchdog:
    """Starts the watchdog and keeps its list right; the watchdog itself is started again if it dies.

    `inherit` is a file descriptor (the lock of the folder) that it holds until its work is done.
    """

    def __init__(self, inherit: int | None = None) -> None:
        self._inherit = () if inherit is None else (inherit,)
        self._groups: set[int] = set()
        self._start()

    def add(self, group: int) -> None:
        """From now on this process group must not outlive the supervisor."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """This process group has ended."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Ends the watchdog, which ends what is still on its list."""
        os.close(self._pipe)
        self._process.wait()

    def _tell(self, line: str) -> None:
        try:
            os.write(self._pipe, line.encode())
        except BrokenPipeError:
            os.close(self._pipe)
            self._process.wait()
            self._start()

    def _start(self) -> None:
        reading, self._pipe = os.pipe()
        script = str(Path(watchdog.__file__))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", script],
            stdin=reading,
            start_new_session=True,
            pass_fds=self._inherit,
        )
        os.close(reading)
        os.write(self._pipe, "".join(f"+{group}\n" for group in self._groups).encode())
