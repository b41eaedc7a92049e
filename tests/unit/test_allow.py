"""Limits that a run takes from while it is at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from errands import ConfigurationError, Errands, Limit, Run, Settings
from errands.core import clock
from errands.core.clock import FakeClock


def make_app(tmp_path: Path) -> Errands:
    app = Errands("test", settings=Settings(home=tmp_path, inline=True))
    app.add_limit(Limit("100/m", name="messages"))
    return app


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        (Limit("100/m"), "give it a name"),
        (Limit("100/m", name="a b"), "give it a name"),
        (Limit("100/m", name="m", by="school"), "no arguments to go by"),
        (Limit("100/m", name="m", counts="to"), "no arguments to go by"),
        (Limit("3", name="m"), "no period"),
        (Limit("50/m", name="messages"), "it is 100/m elsewhere"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(tmp_path: Path, limit: Limit, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make_app(tmp_path).add_limit(limit)


def test_it_is_listed_and_may_be_shared_by_tasks(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    app.add_limit(Limit("100/m", name="messages"))  # the same once more

    @app.task(name="one", limit=Limit("100/m", name="messages"))
    def one() -> None: ...

    (limit,) = app.limits.all()
    assert (limit.name, limit.now, limit.tasks) == ("messages", "100/m", ("run.allow", "one"))


def test_a_task_that_says_otherwise_is_refused_at_start(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    @app.task(name="one", limit=Limit("50/m", name="messages"))
    def one() -> None: ...

    with pytest.raises(ConfigurationError, match="share the limit 'messages'"):
        app.finalize()


def test_inline_it_passes_the_time(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    given: list[tuple[int, float]] = []

    @app.task(name="send")
    async def send(times: int, *, run: Run) -> None:
        given.extend([(await run.allow("messages", 50), clock.timestamp()) for _ in range(times)])

    with clock.use(FakeClock()) as now:
        start = now.timestamp()
        send.delay(3).get()
        send.delay(1).get()
        assert [(count, at - start) for count, at in given] == [(50, 0), (50, 0), (50, 60), (50, 60)]
        app.limits.change("messages", "20/m")
        send.delay(1).get()
    assert given[-1][0] == 20


def test_what_is_not_there_or_never_fits_is_refused(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    @app.task(name="send")
    async def send(name: str, count: int, *, run: Run) -> None:
        await run.allow(name, count)

    for name, count in (("mails", 1), ("messages", 101), ("messages", 0)):
        with pytest.raises(ConfigurationError, match=r"app\.add_limit declared messages \(100/m\)"):
            send.delay(name, count).get()


async def test_a_run_made_by_hand_is_let_on() -> None:
    assert await Run("r", "send").allow("anything", 1000) == 1000
