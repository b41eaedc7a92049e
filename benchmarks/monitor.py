"""What a server is asked, command by command, as its MONITOR tells it.

A server counts the commands that a script calls like any other, in `total_commands_processed` as well as
in `cmdstat_*` of INFO; only MONITOR says of each where it came from. It costs the server time, so nothing
is timed while it listens.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

import redis


class Monitor:
    """Counts commands inside the block.

    Attributes:
        sent: commands that clients sent.
        within: commands that scripts and functions called.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.sent = self.within = 0
        self._client = client
        info: Any = client.client_info()
        # What the benchmark itself asks of the server is nobody's cost.
        self._self = str(info["addr"]).encode()
        self._known: dict[str, Any] = client.connection_pool.connection_kwargs
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._socket = socket.create_connection((self._known["host"], self._known["port"]))
        self._lines = self._socket.makefile("rb", buffering=1 << 20)
        self._socket.sendall(f"AUTH {self._known['password']}\r\nMONITOR\r\n".encode())
        for _ in range(2):
            answer = self._lines.readline()
            if answer != b"+OK\r\n":
                raise ConnectionError(f"the server does not let us listen: {answer!r}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._socket.close()

    def counted(self) -> tuple[int, int]:
        """`sent` and `within` now, everything before this call included."""
        mark = f"mark-{time.monotonic_ns()}"
        self._mark, self._seen = mark.encode(), threading.Event()
        self._client.echo(mark)
        if not self._seen.wait(30):
            raise TimeoutError("the server does not tell what it is asked")
        return self.sent, self.within

    _mark = b""
    _seen: threading.Event

    def _listen(self) -> None:
        # +1700000000.123456 [0 127.0.0.1:5000] "GET" "key"; a script's: [0 lua]
        for line in self._lines:
            source = line.partition(b" [")[2].partition(b"]")[0].partition(b" ")[2]
            if source == self._self:
                if self._mark and self._mark in line:
                    self._seen.set()
            elif source == b"lua":
                self.within += 1
            elif source:
                self.sent += 1
