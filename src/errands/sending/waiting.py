"""How a run is sent that is over a limit: its message waits in Valkey until the limit lets it start."""

from __future__ import annotations

from functools import partial
from typing import Any

from errands.broker.message import any_payload
from errands.broker.operations import Verdict, wait, wait_as_it_is
from errands.broker.streams.layout import place_of
from errands.sending.one import OneCall

_PATIENCE = 60.0  # seconds that a worker waits for a server that is away


class Waiting(OneCall):
    """An app whose runs can wait for limits."""

    @property
    def limits_can_wait(self) -> bool:
        """Whether runs that are over a limit wait in Valkey: not with another broker."""
        return self.context().direct is not None

    def move_to_wait(self, tag: str, run_id: str, waits: str) -> bool:
        """Move the message at hand, as it is, to where it waits for the limits of its run. One round trip.

        Args:
            tag: its delivery tag.
            run_id: of its run.
            waits: what it waits for, as JSON, with its entry (`at`).

        Returns:
            False where the server that keeps limits does not have the message; nothing was done.

        Raises:
            redis.RedisError: the server is away; nobody knows whether it was done.
        """
        queue, level = place_of(self.keys, tag)
        moving = wait_as_it_is(queue, level, run_id, waits)
        return self._live_runs.commit([moving], patience=_PATIENCE)[0].verdict is not Verdict.MISSING

    def send_to_wait(self, signature: Any, waits: str) -> bool:
        """Send a run to where it waits for its limits. One round trip.

        Args:
            signature: of the request at hand, with the same envelope: the run does not go on, it stays.
            waits: what it waits for, as JSON.

        Returns:
            False where only Celery can send this run; nothing was done.

        Raises:
            redis.RedisError: the server is away; nobody knows whether it was done.
        """
        options = dict(signature.options)
        run_id = options.pop("task_id")
        payload = partial(any_payload, signature.args, signature.kwargs)
        context = self.context()._replace(parent=None)
        call = self._call(context, signature.task, self.tasks[signature.task], payload, run_id, None, options)
        if call is None:
            return False
        self._live_runs.commit([wait(call.operation, waits)], patience=_PATIENCE)
        return True
