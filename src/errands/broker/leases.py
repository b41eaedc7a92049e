"""A worker process holds a lease while it lives; what it holds and runs is nobody else's."""

from __future__ import annotations

import os
import socket
import uuid

from errands.broker.client import Client
from errands.broker.keys import Keys

# By the server's clock. Four renewals fit in: a worker that is slow once or twice is not taken for dead.
SECONDS = 10
RENEW_SECONDS = 2.5

_holder = ""
_taken_by = 0
_reader = ""
_reader_of = 0


def take(name: str) -> str:
    """Name the holder of this process, for the processes that are forked from it as well.

    Each start is a holder of its own: a worker that comes back under the same name has not kept what it held.
    """
    global _holder, _taken_by
    _holder = f"{name}/{uuid.uuid4().hex[:12]}"
    _taken_by = os.getpid()
    return _holder


def holder() -> str:
    """The holder that this process works for; empty outside of workers."""
    return _holder


def reader() -> str:
    """The name under which this very process takes messages from queues.

    The holder where this process took it. Any other process has a name of its own: a fork of a worker that
    reads a queue itself answers for that alone, and its parent must not.
    """
    global _reader, _reader_of
    if _holder and _taken_by == os.getpid():
        return _holder
    if _reader_of != os.getpid():
        _reader = f"{socket.gethostname()}-{os.getpid()}/{uuid.uuid4().hex[:12]}"
        _reader_of = os.getpid()
    return _reader


def renew(client: Client, keys: Keys) -> None:
    """Hold on for another `SECONDS`."""
    if _holder:
        client.set(keys.lease(_holder), 1, ex=SECONDS)


def release(client: Client, keys: Keys) -> None:
    """Let go: whatever is still unfinished may start elsewhere at once."""
    if _holder:
        client.delete(keys.lease(_holder))
