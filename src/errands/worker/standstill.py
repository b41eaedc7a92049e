"""Notices a worker that lives and consumes no more, though its broker answers (celery#8030).

Whatever the cause (a connection that is retried for ever, a call in the main thread that never returns), from
outside such a worker looks well: it runs, it holds its messages, its lease is renewed. A fresh process is the
cure.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import kombu.exceptions
import redis

from errands.worker.stop_flag import is_stopping

logger = logging.getLogger("errands.worker")

_ROUNDS = 8  # in which the hub did not turn and the broker answered; the heart beats every 2.5 s
_TURN_SECONDS = 1.0
_LEAVE_SECONDS = 5.0  # for ending in order, beside what runs at work have


class Standstill:
    """Counts the rounds in which the hub stood still though the broker answered.

    Args:
        answers: whether the broker takes a new connection and speaks on it; asked only when the hub is still.
        rounds: after so many of them in a row the worker is taken to be stuck.
    """

    def __init__(self, answers: Callable[[], bool], *, rounds: int = _ROUNDS) -> None:
        self._answers = answers
        self._rounds = rounds
        self._turns = self._seen = self._still = 0

    def turn(self) -> None:
        """From the hub: it turns."""
        self._turns += 1

    def look(self) -> bool:
        """From a thread that goes on: whether the worker is stuck. One that has not consumed yet is not."""
        if self._turns != self._seen or not self._turns or is_stopping():
            self._seen, self._still = self._turns, 0
        elif self._answers():
            self._still += 1
        else:
            self._still = 0  # it waits for its broker, as it should
        return self._still >= self._rounds


def turns_of(hub: Any, standstill: Standstill) -> None:
    """Let the hub, which begins now, tell that it turns, until its connection is lost."""
    standstill.turn()
    hub.call_repeatedly(_TURN_SECONDS, standstill.turn)


def broker_answers(app: Any) -> bool:
    """Whether the broker takes a new connection and speaks on it."""
    try:
        with app.connection_for_read() as connection:
            connection.connect()
            return True
    except (kombu.exceptions.OperationalError, redis.RedisError, OSError):
        return False
    except Exception as exc:  # noqa: BLE001 - a broker of another kind has errors of its own
        logger.debug("the broker does not answer: %s", exc)
        return False


def replace(worker: Any) -> None:
    """End this worker, in order if it still can, so that whoever starts workers starts another one."""
    logger.critical(
        "this worker has not consumed for a while though its broker answers; it ends, and whoever starts "
        "workers starts another one"
    )
    stop = getattr(worker, "stop_by_itself", None)
    if stop is not None:
        stop(os.EX_SOFTWARE)
    patience = float(worker.app.conf.worker_soft_shutdown_timeout or 0) + _LEAVE_SECONDS
    timer = threading.Timer(patience, os._exit, (os.EX_SOFTWARE,))
    timer.daemon = True
    timer.start()
