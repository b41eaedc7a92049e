"""What the tests of child processes have them do."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from errands.children.programs import run_program


class Unwelcome(Exception):
    """An error that the caller knows."""


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def environment() -> dict[str, str]:
    return dict(os.environ)


def fail(text: str) -> None:
    raise ValueError(text)


def refuse(text: str) -> None:
    raise Unwelcome(text)


def no_data() -> object:
    return object()


_kept: list[bytearray] = []


def keep(size: int) -> int:
    """Hold `size` bytes from now on, all of them written to."""
    _kept.append(bytearray(b"x") * size)
    return os.getpid()


def memory_bomb() -> None:
    while True:
        _kept.append(bytearray(b"x") * (8 * 1024 * 1024))


def memory_bomb_outside_python() -> int:
    """What a C library takes that does look whether it got it."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    taken = 0
    while True:
        block = libc.malloc(16 * 1024 * 1024)
        if not block:
            return taken
        ctypes.memset(block, 1, 16 * 1024 * 1024)
        taken += 16 * 1024 * 1024


def large(size: int) -> bytes:
    return b"x" * size


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave(code: int) -> None:
    os._exit(code)


def compute_for_ever() -> None:
    while True:
        pass


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def sleep_holding_the_interpreter() -> None:
    """As C code does that never lets go of it."""
    ctypes.PyDLL(None).sleep(600)


def attempts(folder: str, secret: str, parent: int) -> dict[str, str]:
    """Try what a child may not do; the error of each, or "allowed"."""

    def connect() -> None:
        socket.create_connection(("127.0.0.1", 9), 1)

    tries = {
        "write": lambda: Path(folder, "new").write_text("x"),
        "delete": lambda: Path(secret).unlink(),
        "overwrite": lambda: Path(secret).write_text("x"),
        "mkdir": lambda: Path(folder, "made").mkdir(),
        "connect": connect,
        "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "run": lambda: subprocess.run(["/bin/true"], check=True),
        "signal": lambda: os.kill(parent, signal.SIGUSR1),
        "nowhere": lambda: Path(os.devnull).write_text("x"),
        "read": lambda: Path(secret).read_text(),
        "spy": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
    }
    found = {}
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = "allowed"
        except OSError as error:
            found[name] = type(error).__name__
    return found


def run_a_program(*command: str) -> tuple[int, str]:
    """The exit code of another program, and what it says."""
    code, output, _ = run_program(command, b"what it reads")
    return code, output.decode()


def wait_for_a_program(seconds: str) -> None:
    run_program(["sleep", seconds], b"")


_prepared: list[str] = []


def prepare() -> None:
    """What a child may do before it is locked."""
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        _prepared.append("yes")


def prepared() -> list[str]:
    return _prepared


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def compute_for(seconds: float) -> int:
    """Use so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return os.getpid()
