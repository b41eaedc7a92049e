"""Programs that a function in a child process starts: they end with it. Needs `Limits(programs=True)`."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


def run_program(command: Sequence[str], data: bytes) -> tuple[int, bytes, str]:
    """Run `command` with `data` as its input: its exit code, what it wrote, what it wrote to its errors.

    It has the limits of this process, each with a count of its own, and ends when this process is killed.
    Raises `OSError` where it can't be started.
    """
    libc = ctypes.CDLL(None)

    def end_with_us() -> None:
        # Here it is right: this process has one thread, and that starts the program.
        if sys.platform == "linux":
            libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)

    done = subprocess.run(command, input=data, capture_output=True, preexec_fn=end_with_us, check=False)
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")
