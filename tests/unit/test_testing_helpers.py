"""The helpers that applications test with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from errands import Errands, Keyring, Run, Secret, Settings, State
from errands.core import clock
from errands.kits import mail
from errands.kits.mail.fake import FakeMailer
from errands.testing import Enqueued, FakeClock, _inline_mode, assert_enqueued, drain


@pytest.fixture
def errands_app(tmp_path: Path) -> Errands:
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0", secret_keys=Keyring.new_key())
    app = Errands("helpers", settings=settings, set_as_current=False)

    @app.task(name="welcome")
    def welcome(user_id: int, name: str = "", *, token: Secret[str] = "") -> str:
        if user_id > 1:
            welcome.delay(user_id - 1, name)
        return name

    return app


def test_what_was_enqueued_is_found_however_it_was_passed(
    errands_app: Errands, errands_enqueued: Enqueued
) -> None:
    welcome = errands_app.tasks["welcome"]
    welcome.delay(1, name="Ann", token="open sesame")
    assert_enqueued(errands_enqueued, welcome)
    assert_enqueued(errands_enqueued, "welcome", 1, "Ann")
    assert_enqueued(errands_enqueued, welcome, user_id=1, token="open sesame")
    errands_enqueued.assert_not_enqueued(welcome, user_id=2)


def test_a_failure_lists_what_was_enqueued(errands_app: Errands, errands_enqueued: Enqueued) -> None:
    errands_app.tasks["welcome"].delay(1, "Ann", token="open sesame")
    with pytest.raises(pytest.fail.Exception) as failed:
        assert_enqueued(errands_enqueued, "welcome", user_id=2)
    assert str(failed.value) == (
        "expected to be enqueued:\n  welcome(user_id=2)\nwhat was enqueued:\n  welcome(1, 'Ann', token='***')"
    )


def test_the_opposite_fails_too(errands_app: Errands, errands_enqueued: Enqueued) -> None:
    errands_app.tasks["welcome"].delay(1, "Ann")
    with pytest.raises(pytest.fail.Exception, match="not expected"):
        errands_enqueued.assert_not_enqueued("welcome")


def test_what_has_expired_when_it_is_drained_does_not_run(
    errands_app: Errands, errands_enqueued: Enqueued, errands_clock: FakeClock
) -> None:
    """As a worker does with a run that it takes too late."""

    @errands_app.task(name="code", deadline=30)
    def code(n: int) -> int:
        return n

    gone = [code.delay(1), code.apply_async((2,), expires=5), code.apply_async((3,), deadline=10)]
    moment = clock.now() + timedelta(seconds=20)
    gone.append(code.apply_async((4,), expires=moment))
    gone.append(code.apply_async((5,), expires=moment.isoformat()))
    left = code.apply_async((6,), deadline=100)
    errands_clock.advance(30)
    done = {item.sent.id: (item.status, item.value) for item in drain(errands_enqueued)}
    assert done == {**{each.id: ("REVOKED", None) for each in gone}, left.id: ("SUCCESS", 6)}
    with _inline_mode(errands_app) as runs:
        states = [run.state for each in gone if (run := runs.get(each.id)) is not None]
    assert states == [State.EXPIRED] * 5


def test_draining_runs_follow_ups_until_nothing_is_left(
    errands_app: Errands, errands_enqueued: Enqueued
) -> None:
    errands_app.tasks["welcome"].delay(3, "Ann")
    done = drain(errands_enqueued)
    assert [item.sent.args for item in done] == [(3, "Ann"), (2, "Ann"), (1, "Ann")]
    assert [item.value for item in done] == ["Ann"] * 3
    assert len(errands_enqueued) == 0


def test_draining_raises_what_the_task_raised(errands_app: Errands, errands_enqueued: Enqueued) -> None:
    @errands_app.task(name="broken")
    def broken() -> None:
        raise KeyError("why")

    broken.delay()
    with pytest.raises(KeyError, match="why"):
        drain(errands_enqueued)
    broken.delay()
    assert [item.status for item in drain(errands_enqueued, throw=False)] == ["FAILURE"]


def test_what_sends_itself_for_ever_is_told_so(errands_app: Errands, errands_enqueued: Enqueued) -> None:
    @errands_app.task(name="endless")
    def endless() -> None:
        endless.delay()

    endless.delay()
    with pytest.raises(RuntimeError, match="send itself"):
        drain(errands_enqueued, most=20)


def test_the_clock_moves_when_told(errands_clock: FakeClock) -> None:
    from errands.core import clock

    before = clock.now()
    errands_clock.advance(90)
    assert (clock.now() - before).total_seconds() == 90


def test_mail_ends_in_the_box(
    errands_app: Errands, errands_inline: object, errands_mailbox: FakeMailer
) -> None:
    @errands_app.task(name="write")
    async def write(to: str, *, mailer: mail.Mailer, run: Run) -> None:
        await mailer.send(mail.Message(to=to, subject="Hello", text=run.task))

    write.delay("ann@example.com").get()
    assert [message.subject for message in errands_mailbox.outbox] == ["Hello"]
