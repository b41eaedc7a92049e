"""What a caller hears of a run that Celery could not send."""

from __future__ import annotations

import pytest
from amqp.exceptions import MessageNacked
from kombu.exceptions import OperationalError

from errands.sending import refusals


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            TimeoutError("timed out"),
            "did not answer in time (it failed); it is not known whether",
        ),
        (MessageNacked(), "was not sent: the broker at broker:5672// refused it"),
        (ConnectionRefusedError(), "was not sent: the broker at broker:5672// does not answer (it failed)"),
    ],
)
def test_it_is_told_what_is_known(cause: Exception, words: str) -> None:
    error = OperationalError("it failed")
    error.__cause__ = cause
    told = str(refusals.of_celery(error, "add", "amqp://user:secret@broker:5672//"))
    assert words in told
    assert "secret" not in told
