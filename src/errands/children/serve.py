"""The program of a child process: reads calls from a socket, makes them, writes the answers.

Started by path with the interpreter's `-I`; its one argument is JSON: see `process.Child`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

HEADER = struct.Struct("!Q")
"""Before each message: its length in bytes."""

IDLE = 75
"""What a child exits with that was not called for a while."""

_MOST_WORDS = 4000  # characters of an error's text, and of its traceback


def main() -> int:
    """Serve until the parent is gone, closes the socket, or has not called for a while."""
    start = json.loads(sys.argv[1])
    sys.path[:] = start["path"]
    # Known only now where the package is.
    from msgspec import msgpack

    from errands.children import sandbox

    parent = socket.socket(fileno=start["socket"])
    sandbox.die_with(start["life"])
    if start["prepare"]:
        _function(start["prepare"])()
    sandbox.limit_memory(start["memory"])
    sandbox.lock(programs=start["programs"])
    # Made while there is memory to make it.
    out_of_memory = msgpack.encode(["memory", None, 0])
    while select.select([parent], [], [], start["idle"])[0]:
        message = _read(parent)
        if message is None:
            return IDLE
        sandbox.limit_processor(start["cpu_seconds"])
        # A MemoryError may come up anywhere in here; afterwards nobody knows what is half done.
        try:
            answer = _answer(*msgpack.decode(message), encode=msgpack.encode)
        except MemoryError:
            answer = out_of_memory
        parent.sendall(HEADER.pack(len(answer)))
        parent.sendall(answer)
        del message, answer
    return IDLE


def _answer(name: str, arguments: list[Any], *, encode: Callable[[Any], bytes]) -> bytes:
    try:
        return encode(["done", _function(name)(*arguments), _resident()])
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        trace = "".join(traceback.format_exception(error))[-_MOST_WORDS:]
        return encode(["failed", [kind, _plain(str(error)[:_MOST_WORDS]), _plain(trace)], _resident()])


@cache
def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), attribute)
    return function


def _read(parent: socket.socket) -> bytearray | None:
    """The next message; None when the parent has closed its end."""
    header = _exactly(parent, HEADER.size)
    return None if header is None else _exactly(parent, HEADER.unpack(header)[0])


def _exactly(parent: socket.socket, size: int) -> bytearray | None:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        read = parent.recv_into(view)
        if read == 0:
            return None
        view = view[read:]
    return buffer


def _resident() -> int:
    """Bytes of memory that this process holds now; the most it ever held, where the system tells no more."""
    try:
        with open("/proc/self/statm", "rb") as pages:  # noqa: PTH123 - pathlib is not loaded for this
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return math.ceil(most * (1 if sys.platform == "darwin" else 1024))


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    sys.exit(main())
