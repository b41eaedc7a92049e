"""What follows from a receiver's answer."""

import pytest

from errands.core.errors import Discard
from errands.kits.webhooks.errors import WebhookFailed, WebhookGone, WebhookRefused
from errands.kits.webhooks.outcome import SHORT, STANDARD, check
from errands.kits.webhooks.provider import Reply


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundreds_are_success(status):
    check(Reply(status))


@pytest.mark.parametrize(
    "status", [300, 301, 302, 307, 308, 408, 409, 425, 429, 500, 502, 503, 504, 599, 700, 102]
)
def test_what_may_pass_is_tried_again(status):
    with pytest.raises(WebhookFailed, match=str(status)) as caught:
        check(Reply(status))
    assert not isinstance(caught.value, Discard)
    assert SHORT.covers(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 415, 418, 422, 451, 499])
def test_what_would_be_refused_again_fails_at_once(status):
    with pytest.raises(WebhookRefused) as caught:
        check(Reply(status))
    assert isinstance(caught.value, Discard)
    assert isinstance(caught.value, WebhookGone) is (status == 410)


def test_the_wait_that_a_receiver_asks_for_is_honoured_by_the_retry_policy():
    with pytest.raises(WebhookFailed) as caught:
        check(Reply(503, "3600"))
    assert SHORT.wait(1, caught.value, random=lambda: 0.5) == 3600
    with pytest.raises(WebhookFailed) as caught:
        check(Reply(503, "1"))
    assert SHORT.wait(1, caught.value, random=lambda: 0.5) == 30


def test_the_two_schedules():
    def waits(policy):
        return [policy.wait(n, random=lambda: 0.5) for n in range(1, policy.times + 1)]

    assert waits(SHORT) == [30, 60, 120]
    minute, hour = 60, 3600
    assert waits(STANDARD) == [
        5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour,
    ]  # fmt: skip
