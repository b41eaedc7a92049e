"""One child process, seen from its parent: started, called, ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import msgspec

from errands.children import serve
from errands.children.errors import ChildCrashed, ChildError, LimitReached
from errands.children.limits import MIB, Limits

# What of our environment a child gets: what the interpreter and its libraries need to start. Not our secrets.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")

_SLICE = 0.25  # seconds: how soon an error that is raised in a waiting thread from outside is seen there
_CHUNK = 1 * MIB
_MOST_WORDS = 3000


class Idle(Exception):
    """The child had ended for want of calls before it read this one: nothing was begun."""


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What a child answers: how it went, the value or the error, and the bytes of memory it holds."""

    kind: Literal["done", "failed", "memory"]
    value: Any
    resident: int


class Child:
    """A running child process. Serves one caller at a time."""

    def __init__(
        self, name: str, limits: Limits, prepare: str | None, environment: Mapping[str, str]
    ) -> None:
        self._name = name
        self._limits = limits
        self._calls = 0
        self._resident = 0
        self._owner = os.getpid()
        self._killed = False
        self._words = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - as long as the child
        self._socket, theirs = socket.socketpair()
        # Nobody writes to it. That its other end is closed tells the child that we are gone.
        life, held = os.pipe()
        self._life = open(held, "wb", 0)  # noqa: PTH123, SIM115
        try:
            start = {
                "path": [str(Path(entry).absolute()) for entry in sys.path],
                "socket": theirs.fileno(),
                "life": life,
                "prepare": prepare,
                "memory": limits.memory,
                "cpu_seconds": limits.cpu_seconds,
                "idle": limits.idle,
                "programs": limits.programs,
            }
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "faulthandler", serve.__file__, json.dumps(start)],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=(theirs.fileno(), life),
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
                | dict(environment),
                start_new_session=True,  # Ctrl-C is for its parent; what it starts ends with it
            )
        except OSError as error:
            self._socket.close()
            self._life.close()
            self._words.close()
            raise ChildError(f"{name}: no child process could be started: {error}") from error
        finally:
            theirs.close()
            os.close(life)
        self._socket.setblocking(False)
        self._poll = select.poll()
        _running.add(self)

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return not self._killed and self._process.poll() is None

    @property
    def worn(self) -> bool:
        """Whether it has served enough, or has grown too large to be kept."""
        return self._calls >= self._limits.calls or self._resident > self._limits.replaced_above

    def call(self, message: bytes) -> Answer:
        """Send `message`, an encoded call, and wait for the answer.

        After an error the child is of no more use.

        Raises:
            LimitReached, ChildCrashed: see there.
            Idle: call another child.
        """
        self._calls += 1
        self._words.truncate(0)
        deadline = time.monotonic() + self._limits.seconds
        try:
            self._send(serve.HEADER.pack(len(message)), deadline)
            self._send(message, deadline)
            size = serve.HEADER.unpack(self._receive(serve.HEADER.size, deadline))[0]
            if size > self._limits.memory:
                raise self._too_much()
            answer = msgspec.msgpack.decode(self._receive(size, deadline), type=Answer)
        except TimeoutError:
            self.kill()
            raise LimitReached(
                "seconds", f"{self._name}: not done within {self._limits.seconds:g} s, and ended"
            ) from None
        except (EOFError, ConnectionError):
            raise self._why() from None
        except msgspec.DecodeError as error:
            raise ChildCrashed(f"{self._name}: the answer is none: {error}", signal=None, words="") from error
        if answer.kind == "memory":
            raise self._too_much()
        self._resident = answer.resident
        return answer

    def kill(self) -> None:
        """End it and what it started, from any thread; once is enough, and more does no harm."""
        if self._owner != os.getpid():
            return
        self._killed = True
        # Not reaped yet, so its number is nobody else's.
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, wait for that, and free what belongs to it. Not while it is being called."""
        self.kill()
        self._process.wait()
        self._free()

    def disown(self) -> None:
        """In a forked process: let go of a child that is our parent's."""
        self._process.returncode = 0  # not ours to wait for
        self._free()

    def _free(self) -> None:
        _running.discard(self)
        self._socket.close()
        self._life.close()
        self._words.close()

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT, deadline)
            with suppress(BlockingIOError):
                view = view[self._socket.send(view[:_CHUNK]) :]

    def _receive(self, size: int, deadline: float) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            self._wait(select.POLLIN, deadline)
            read = self._socket.recv_into(view)
            if read == 0:
                raise EOFError
            view = view[read:]
        return buffer

    def _wait(self, event: int, deadline: float) -> None:
        self._poll.register(self._socket, event)
        while (left := deadline - time.monotonic()) > 0:
            if self._poll.poll(min(left, _SLICE) * 1000):
                return
        raise TimeoutError

    def _too_much(self) -> LimitReached:
        self.kill()
        return LimitReached(
            "memory",
            f"{self._name}: needs more than the {self._limits.memory // MIB} MiB of memory it may have",
        )

    def _why(self) -> Exception:
        """The child is gone, or has closed its end: why."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        words = self._last_words()
        if code == serve.IDLE:
            return Idle()
        if code == -signal.SIGXCPU:
            return LimitReached(
                "cpu_seconds",
                f"{self._name}: not done within {self._limits.cpu_seconds:g} s of processor time, and ended",
            )
        # C++ ends the process where memory is short; the interpreter does so outside of functions.
        if "bad_alloc" in words or words.endswith("MemoryError"):
            return self._too_much()
        if code >= 0:
            return ChildCrashed(f"{self._name}: the process left with code {code}", signal=None, words=words)
        number = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return ChildCrashed(f"{self._name}: the process was ended by {number}", signal=number, words=words)

    def _last_words(self) -> str:
        end = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, end - _MOST_WORDS))
        return self._words.read().decode("utf-8", "replace").strip()


_running: WeakSet[Child] = WeakSet()


def _after_fork() -> None:
    # A forked process that holds the pipe too would keep children alive whose parent is gone.
    for child in list(_running):
        child.disown()


os.register_at_fork(after_in_child=_after_fork)
