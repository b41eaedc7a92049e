"""Points at which a process of the test application kills itself, so that a fault comes exactly there.

A point is armed by putting tokens into a folder. A process that comes by takes one, and dies of it; without a
token it goes on. So a fault comes as often as was asked for, whichever process meets it.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from tests.crash.history import History, What

_MESSAGE = b'"task"'  # each message of Celery's protocol names its task in its headers


class Point(StrEnum):
    """Where a process may die."""

    READ = "read"  # the reply that holds a message has come; nothing was done with it
    RECEIVED = "received"  # Celery knows the message; its run was not started
    EFFECT = "effect"  # the work is done, nobody knows


class Points:
    """The armed points of one system under test.

    Args:
        folder: shared by all its processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._history = History(folder)

    def arm(self, point: Point, times: int = 1) -> None:
        """Let the next `times` processes that come by die."""
        folder = self._of(point)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(times):
            (folder / str(number)).touch()

    def armed(self, point: Point) -> int:
        """How many are still to die."""
        return len(list(self._of(point).iterdir())) if self._of(point).exists() else 0

    def pass_by(self, point: Point) -> None:
        """Die here with the whole worker, its children too, if the point is armed."""
        try:
            tokens = sorted(self._of(point).iterdir())
        except FileNotFoundError:
            return
        for token in tokens:
            try:
                token.unlink()
            except FileNotFoundError:  # another process was faster
                continue
            die(self._history, f"at the point {point}")

    def watch_replies(self) -> None:
        """Pass by `READ` whenever a reply from the server holds a message of Celery's."""
        from redis.connection import AbstractConnection

        read = AbstractConnection.read_response

        def read_response(connection: Any, *args: Any, **kwargs: Any) -> Any:
            reply = read(connection, *args, **kwargs)
            if holds_message(reply):
                self.pass_by(Point.READ)
            return reply

        AbstractConnection.read_response = read_response  # type: ignore[method-assign]

    def watch_received(self) -> None:
        """Pass by `RECEIVED` whenever the worker takes a message over from its transport."""
        from celery.signals import task_received

        def received(**_: Any) -> None:
            self.pass_by(Point.RECEIVED)

        task_received.connect(received, weak=False)

    def _of(self, point: Point) -> Path:
        return self._folder / "points" / point


def holds_message(reply: Any) -> bool:
    """Whether a message of Celery's is somewhere in a reply."""
    if isinstance(reply, bytes):
        return _MESSAGE in reply and b'"delivery_tag"' in reply
    if isinstance(reply, list | tuple):
        return any(holds_message(item) for item in reply)
    if isinstance(reply, dict):
        return any(holds_message(item) for item in reply.values())
    return False


def die(history: History, why: str) -> None:
    """KILL this process's group: a worker and its children go together, as when a machine is lost."""
    group = os.getpgrp()
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                history.write(What.KILLED, pid=process.pid, note=why)
        except (ProcessLookupError, PermissionError):
            continue
    os.killpg(group, signal.SIGKILL)
