"""What batches need that no member's end brings about: an end where nothing is heard of them any more."""

from __future__ import annotations

from typing import Any, Protocol

import structlog

_log = structlog.get_logger(__name__)


class BatchApp(Protocol):
    """What this needs of the app."""

    @property
    def batches(self) -> Any: ...

    def send_follow_ups(self, batch_id: str, following: dict[str, list[Any]]) -> None: ...


class BatchKeeper:
    """Closes batches whose sender fell silent, gives up those whose members did, and sends what follows
    a batch where our own script could not put it into its queue.

    Args:
        app: an `Errands` app.
        seconds: between two looks.
    """

    def __init__(self, app: BatchApp, *, seconds: float = 1.0) -> None:
        self._app = app
        self._seconds = seconds

    def step(self) -> float:
        """Look once. Returns seconds until the next look.

        Raises:
            redis.RedisError, BrokerUnavailable: a server is away; all is done at the next look.
        """
        batches = self._app.batches
        for batch_id in batches.silent():
            if batches.give_up(batch_id):
                _log.warning("nothing was heard of a batch for too long", batch_id=batch_id)
        for batch_id in batches.unfollowed():
            # A crash in between sends them again, and a follow-up that is known is not sent twice.
            self._app.send_follow_ups(batch_id, batches.signatures(batch_id))
            batches.followed(batch_id)
        return self._seconds
