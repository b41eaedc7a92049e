"""Ports of the local run: free ones for our own servers, and a clear word when the wanted one is taken."""

from __future__ import annotations

import errno
import socket

from errands.doors.local.errors import LocalRunError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    try:
        _try_to_listen(port)
    except OSError:
        return False
    return True


def free_port(preferred: int | None = None, *, avoid: frozenset[int] = frozenset()) -> int:
    """A port of the loopback address that nobody holds; `preferred` where that one is free.

    Nothing keeps the port for the caller: whoever listens on it next may still find it taken.
    """
    if preferred is not None and preferred not in avoid and is_free(preferred):
        return preferred
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port


def parse_port(text: str) -> int:
    """The number in `PORT` or `--port`; 0 stands for "any free one". LocalRunError says what is wrong."""
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise LocalRunError(f"PORT must be a number from 0 to 65535, not {text!r}.")
    return port


def require_free(port: int) -> None:
    """LocalRunError, in one line, if nothing could listen on `port`."""
    try:
        _try_to_listen(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LocalRunError(
                f"Port {port} is taken by another program; choose another, for instance PORT={_next(port)}."
            ) from None
        raise LocalRunError(
            f"Port {port} cannot be used ({error.strerror}); choose another one, for instance PORT=8000."
        ) from None


def _try_to_listen(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Like the servers themselves: a port that only waits out its last connections counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        probe.listen(1)


def _next(port: int) -> int:
    return port + 1 if port < 65535 else 8000
