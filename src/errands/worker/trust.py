"""Which messages a worker believes: those that we have signed, and not a second time.

A message that was copied and is sent again is told from a new one in two ways. While Valkey remembers the
run, its live state does not let it start again. It remembers a run that has ended for
`ERRANDS_RESULT_EXPIRES`, and one that has not ended until a week after it was due. So a message that is older
than half of the first, and whose run nobody remembers, is an old one; the clocks of two machines may differ
by the other half. `docs/decisions/0031-trusted-messages.md` has the reasoning.

Older means: since it was signed, or, where it was to wait, since it was due. For the same reason a message
must not come before its time: it would run then, be forgotten, and run once more when it is due.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from errands.core import clock
from errands.core.errors import UntrustedMessage
from errands.core.signing import Signer

Check = Callable[[Any], None]


class Trust:
    """Looks at messages before anything in them is believed.

    Args:
        signer: the keys.
        accept_unsigned: messages without a signature are run as well. One with a wrong signature never is.
        memory: seconds that ended runs are remembered for.
        known: whether a run of this id is remembered.
    """

    def __init__(
        self, signer: Signer, *, accept_unsigned: bool, memory: float, known: Callable[[str], bool]
    ) -> None:
        self._signer = signer
        self._accept_unsigned = accept_unsigned
        self._window = memory / 2
        self._known = known

    def check(self, message: Any) -> None:
        """Return if one of kombu's messages may be believed.

        Raises:
            UntrustedMessage: it may not; the text says why.
            redis.RedisError: it is old, and Valkey, which would know of its run, is away.
        """
        headers = message.headers if isinstance(message.headers, dict) else {}
        sent_for = (message.delivery_info or {}).get("eta")
        if sent_for is not None:  # our transport goes by the server's clock, and has put another time here
            headers = {**headers, "eta": sent_for}
        try:
            body = bytes_of(message)
        except (ValueError, TypeError) as exc:
            raise UntrustedMessage("its body is none that we could have signed") from exc
        signed = self._signer.check(headers, body, message.content_type, message.content_encoding)
        if signed is None:
            if self._accept_unsigned:
                return
            raise UntrustedMessage(
                "it is not signed: its sender needs ERRANDS_SIGNING_KEYS, or the workers "
                "ERRANDS_ACCEPT_UNSIGNED=true"
            )
        due, now = time_of(headers.get("eta")), clock.timestamp()
        early = max(signed.at - now, due - now if sent_for is not None else 0.0)
        if early > self._window:
            raise UntrustedMessage(f"it comes {early / 3600:.0f} hours before its time")
        age = now - max(signed.at, due)
        if age > self._window and not self._known(str(headers.get("id"))):
            raise UntrustedMessage(
                f"it is {age / 3600:.0f} hours old, and nobody remembers its run: it may have run before"
            )


def trust_of(app: Any) -> Check | None:
    """The check that the workers of `app` make; None where messages are not signed."""
    if app.signer is None:
        return None
    settings = app.settings
    return Trust(
        app.signer, accept_unsigned=settings.accept_unsigned, memory=settings.result_expires,
        known=lambda run_id: app.live.known(run_id),
    ).check  # fmt: skip


def bytes_of(message: Any) -> bytes:
    """The body of one of kombu's messages, as it was signed."""
    body = message.body
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def time_of(eta: Any) -> float:
    """Seconds since 1970; 0 where there is no time. What is none Celery refuses."""
    try:
        moment = eta if isinstance(eta, datetime) else datetime.fromisoformat(eta)
    except (ValueError, TypeError):
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
