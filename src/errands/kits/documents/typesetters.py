"""Processes that set documents: started when needed, ended at a time limit, replaced when they grow.

A process of its own because typst's cache grows with many large, different documents, because nothing inside
of a process can end a template that does not end, and because a document that needs too much memory must not
take the worker along.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from errands.core.errors import ConfigurationError
from errands.kits.documents.errors import TypesetterFailed

_PROGRAM = Path(__file__).with_name("typesetter.py")
_NOWHERE = "http://127.0.0.1:9"
# Typst fetches packages from the network. It can't: nobody listens at its proxy. Nor does it see our secrets.
_ENVIRONMENT = {
    **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), _NOWHERE),
    **dict.fromkeys(("https_proxy", "http_proxy", "all_proxy"), _NOWHERE),
    "MALLOC_ARENA_MAX": "2",
    "LC_ALL": "C.UTF-8",
}


class Answer(NamedTuple):
    """What a typesetter made (nothing, where `error` says why), and typst's words on it."""

    made: bytes
    error: str
    diagnostic: str
    warnings: list[str]


class Order(NamedTuple):
    """What is to be set: a template, its data as JSON, and typst's options for what comes out."""

    template: str
    data: str
    options: dict[str, Any]


class Stop:
    """Ends the setting of an order from any thread: nobody wants it any more."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None

    def calls(self, end: Callable[[], None] | None) -> None:
        """Have `end` called by `now`, or at once if that was called; None when there is nothing to end."""
        with self._lock:
            self._end = end
            if self.stopped and end:
                end()

    def now(self) -> None:
        """End it, at once."""
        with self._lock:
            self.stopped = True
            if self._end:
                self._end()


class Typesetters:
    """Sets orders, each by an idle process, or by a new one. Any number of threads may call.

    `seconds`: the most for one document. `memory`: bytes that a process may take (held on Linux); one that
    holds more than a third of it after a document is replaced.
    """

    def __init__(self, root: Path, fonts: Sequence[Path], *, seconds: float, memory: int) -> None:
        spec = find_spec("typst")
        if spec is None or spec.origin is None:
            raise ConfigurationError("documents need typst: pip install 'errands[documents]'")
        self._setup = json.dumps(
            {
                "root": str(root),
                "fonts": [str(folder) for folder in fonts],
                "memory": memory,
                "packages": str(Path(spec.origin).parents[1]),
            }
        )
        self.seconds = seconds
        self._memory = memory
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def set(self, order: Order, stop: Stop) -> Answer:
        """Have `order` set; raises `TypesetterFailed` when the process ended instead, for whatever reason."""
        process = self._take()
        stop.calls(process.kill)
        try:
            answer, resident = process.set(order, self.seconds)
        except BaseException:
            process.close()
            raise
        finally:
            # From here on it may be at somebody else's order.
            stop.calls(None)
        with self._lock:
            if not self._closed and not stop.stopped and resident < self._memory // 3:
                self._idle.append(process)
                return answer
        process.close()
        return answer

    def close(self) -> None:
        """End the idle processes; the others end after their order."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    return process
                process.close()
        return _Process(self._setup)


class _Process:
    def __init__(self, setup: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM), setup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
            # A Ctrl-C in a terminal is the worker's, which lets a document end.
            start_new_session=True,
        )
        # What nobody closes ends with its object; a fork of this process has no say in it.
        self._end = weakref.finalize(self, _end, self._popen, os.getpid())
        self._end.atexit = False

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def set(self, order: Order, seconds: float) -> tuple[Answer, int]:
        orders, answers = self._pipes()
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            data = order.data.encode()
            header = {
                "template": order.template,
                "size": len(data),
                "options": order.options,
                # Should this process die, nobody else ends that one.
                "seconds": int(seconds) + 5,
            }
            orders.write(json.dumps(header).encode() + b"\n" + data)
            orders.flush()
            line = answers.readline()
            answer = json.loads(line) if line.endswith(b"\n") else None
            made = answers.read(answer["size"]) if answer else b""
        except OSError:
            answer, made = None, b""
        finally:
            timer.cancel()
        if answer is None or len(made) != answer["size"]:
            raise self._failed(order, late.is_set(), seconds)
        return (
            Answer(made, answer.get("error", ""), answer.get("diagnostic", ""), answer.get("warnings", [])),
            answer["resident"],
        )

    def _failed(self, order: Order, late: bool, seconds: float) -> TypesetterFailed:
        if not late:
            # It ends by itself, and its exit code tells why.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(1)
        self.close()
        if late:
            return TypesetterFailed(
                f"{order.template} was not set within {seconds:g} s: make the document smaller, or give more "
                "time with documents.kit(seconds=...)"
            )
        return TypesetterFailed(
            f"the typesetter ended in the middle of {order.template} (exit {self._popen.returncode}; its "
            "last words are on standard error): too little memory for this document is the usual reason; "
            "make it smaller, or give more with documents.kit(memory=...)"
        )

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> None:
        """End the process, which does nothing or nothing that anybody waits for."""
        self._end()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        return cast("IO[bytes]", self._popen.stdin), cast("IO[bytes]", self._popen.stdout)


def _end(popen: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return
    popen.kill()
    popen.wait()
    for pipe in (popen.stdin, popen.stdout):
        # What was still to be flushed to it, nobody reads.
        with contextlib.suppress(OSError):
            if pipe:
                pipe.close()
