"""kombu's own Redis transport, on lists, which keeps an entry that is no message instead of dying of it.

For addresses that begin with `stock+redis://`. The stock transport raises out of the worker's loop, which
ends the worker; the entry is gone by then. What is relied on inside of kombu: that a channel makes its
clients of `_get_client()`, and reads a queue's entry by `parse_response(…, "BRPOP")`.
`tests/unit/test_celery_internals.py` tells when kombu changes that.
"""

from __future__ import annotations

from typing import Any

from celery import current_app
from kombu.transport import redis as stock
from kombu.utils.json import loads

from errands.broker.streams.dead_letters import recorder

# kombu keeps the messages of a priority above zero in lists of their own: name, separator, step.
_SEPARATOR = "\x06\x16"


class Channel(stock.Channel):
    """A channel whose clients look at what they read before it is delivered."""

    def _get_client(self) -> Any:
        base: Any = super()._get_client()  # type: ignore[no-untyped-call]
        channel = self

        class Client(base):
            def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
                reply = super().parse_response(connection, command_name, **options)
                if command_name == "BRPOP" and reply:
                    problem = channel.problem_of(reply[1])
                    if problem is not None:
                        keep(reply[0], reply[1], problem)
                        return None  # as if the queue had been empty
                return reply

        return Client

    def problem_of(self, raw: bytes | str) -> str | None:
        """Why `raw` cannot be delivered; None when it can."""
        try:
            payload = loads(raw)  # type: ignore[no-untyped-call]
            properties = payload["properties"]
            if not isinstance(properties["delivery_info"], dict) or "delivery_tag" not in properties:
                return "its properties are not those of a message"
            self.decode_body(  # type: ignore[no-untyped-call]
                payload["body"], properties.get("body_encoding")
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            return f"{type(exc).__name__}: {exc}"
        return None


class Transport(stock.Transport):
    """Set as `broker_transport` for `stock+redis://` addresses."""

    Channel = Channel


def keep(queue: bytes | str, raw: bytes | str, problem: str) -> None:
    """Make a dead letter of an entry that is no message."""
    data = raw.encode() if isinstance(raw, str) else raw
    name = (queue.decode() if isinstance(queue, bytes) else queue).partition(_SEPARATOR)[0]
    record = recorder(lambda: current_app.live)
    record(name, data, f"the entry in the queue is no message: {problem}")
