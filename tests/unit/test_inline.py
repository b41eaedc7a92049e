"""Inline mode: all the way, with no broker at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group, shared_task

from errands import Discard, Errands, InvalidArguments, Keyring, Queue, Retry, Run, Secret, Settings, Snooze
from errands.core.clock import FakeClock
from errands.core.errors import ConfigurationError, PayloadTooLarge
from errands.core.events import Kind
from errands.core.states import State
from errands.testing import events_of, inline
from errands.worker.inline import InlineRuns


class Desk:
    """A resource that remembers how its block ended."""

    ends: list[str]

    def __init__(self) -> None:
        self.ends = []


@pytest.fixture
def app(tmp_path: Path) -> Errands:
    # An address where nobody listens: whoever touches the broker fails.
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0", secret_keys=Keyring.new_key())
    return Errands("inline", settings=settings, set_as_current=False)


@pytest.fixture
def runs(app: Errands, errands_clock: FakeClock) -> Iterator[InlineRuns]:
    with inline(app) as found:
        yield found


def test_retries_happen_with_the_waits_of_the_policy(
    app: Errands, runs: InlineRuns, errands_clock: FakeClock
) -> None:
    attempts = []

    @app.task(name="flaky", retry=Retry(3, first=60, most=600, jitter=0))
    async def flaky(*, run: Run) -> str:
        attempts.append((run.attempt, errands_clock.timestamp()))
        if run.attempt < 4:
            raise ConnectionError("away")
        return "done"

    result = flaky.delay()
    assert result.get() == "done"
    start = attempts[0][1]
    assert [(n, at - start) for n, at in attempts] == [(1, 0), (2, 60), (3, 180), (4, 420)]
    kinds = [event.kind for event in events_of(runs, result.id)]
    assert kinds == [Kind.QUEUED, *[Kind.STARTED, Kind.RETRYING] * 3, Kind.STARTED, Kind.SUCCEEDED]


def test_what_a_run_starts_with_a_chain_is_its_owners(app: Errands, runs: InlineRuns) -> None:
    """As with a broker, where each message says whose it is."""

    @app.task(name="link")
    async def link(n: int) -> int:
        return n + 1

    @app.task(name="starts")
    def starts(*, run: Run) -> list[str]:
        links = [link.s(1).set(task_id=run.child_id("a")), link.s().set(task_id=run.child_id("b"))]
        chain(*links).apply_async()
        return [each.options["task_id"] for each in links]

    ids = starts.apply_async(owner="7").get()
    found = [runs.get(run_id) for run_id in ids]
    assert [(run.facts["owner"], run.facts["result"]) for run in found if run] == [("7", 2), ("7", 3)]


def test_tries_used_up_end_in_failure(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="hopeless", retry=Retry(2))
    def hopeless() -> None:
        raise ConnectionError("away")

    result = hopeless.delay()
    assert isinstance(result.result, ConnectionError)
    run = runs.get(result.id)
    assert run is not None
    assert (run.state, run.attempt, run.facts["error"]["message"]) == (State.FAILED, 3, "away")


def test_a_discard_is_not_tried_again(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="incomplete", retry=Retry(3))
    def incomplete() -> None:
        raise Discard("the course is not complete")

    result = incomplete.delay()
    run = runs.get(result.id)
    assert run is not None
    assert (run.state, run.attempt) == (State.DISCARDED, 1)
    assert result.state == "FAILURE"


def test_a_snooze_waits_and_is_not_counted(app: Errands, runs: InlineRuns, errands_clock: FakeClock) -> None:
    calls = []

    @app.task(name="sleepy", retry=Retry(0))
    def sleepy(*, run: Run) -> int:
        calls.append(errands_clock.timestamp())
        if len(calls) < 3:
            raise Snooze(30)
        return run.attempt

    assert sleepy.delay().get() == 1
    assert [at - calls[0] for at in calls] == [0, 30, 60]


def test_something_that_snoozes_for_ever_is_told_so(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="never")
    def never() -> None:
        raise Snooze(1)

    assert "inline mode" in str(never.delay().result)


def test_follow_ups_run_too(app: Errands, runs: InlineRuns) -> None:
    """Mistake 13: inline mode still called `.delay` for some tasks."""
    done = []

    @app.task(name="second")
    def second(n: int) -> None:
        done.append(n)

    @app.task(name="first")
    async def first() -> None:
        second.delay(1)
        app.send_task("second", (2,))
        second.apply_async((3,), countdown=3600)

    first.delay().get()
    assert done == [1, 2, 3]


def test_canvas(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    assert chain(add.s(1, 2), add.s(3))().get() == 6
    assert group(add.s(n, n) for n in range(3))().get() == [0, 2, 4]
    assert chord([add.s(1, 1), add.s(2, 2)], total.s())().get() == 6


def test_bound_tasks_and_their_requests(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="plain", bind=True)
    def plain(self: Any, n: int) -> list[Any]:
        return [self.name, self.request.id, n]

    @app.task(name="bound", bind=True)
    async def bound(self: Any, n: int) -> list[Any]:
        return [self.name, self.request.id, n]

    for task in (plain, bound):
        result = task.delay(5)
        assert result.get() == [task.name, result.id, 5]


def test_shared_and_class_based_tasks_are_tasks_like_others(app: Errands, runs: InlineRuns) -> None:
    @shared_task(name="shared-one")
    def shared(n: int) -> int:
        return n

    class Old(app.Task):  # type: ignore[name-defined, misc]
        name = "old"

        def run(self, n: int) -> list[Any]:
            return [self.name, n]

    old = app.register_task(Old())
    assert app.tasks["shared-one"].delay("3").get() == 3
    assert old.delay("4").get() == ["old", 4]
    with pytest.raises(InvalidArguments):
        old.delay("x")


def test_celerys_own_retry_goes_on_working(app: Errands, runs: InlineRuns) -> None:
    @app.task(
        name="auto",
        autoretry_for=(KeyError,),
        max_retries=3,
        retry_backoff=False,
        default_retry_delay=0,
        bind=True,
    )
    def auto(self: Any) -> int:
        if self.request.retries < 2:
            raise KeyError("again")
        return int(self.request.retries)

    assert auto.delay().get() == 2


def test_a_known_id_is_one_run(app: Errands, runs: InlineRuns) -> None:
    done = []

    @app.task(name="child")
    def child(n: int) -> None:
        done.append(n)

    @app.task(name="parent")
    def parent(*, run: Run) -> str:
        child.apply_async((1,), task_id=run.child_id("child"))
        child.apply_async((1,), task_id=run.child_id("child"))
        return run.child_id("child")

    result = parent.delay()
    assert done == [1]
    again = Run(result.id, "parent").child_id("child")
    assert result.get() == again != Run(result.id, "parent").child_id("other")


def test_a_runs_resources_commit_with_it_or_roll_back(app: Errands, runs: InlineRuns) -> None:
    ends: list[str] = []

    @asynccontextmanager
    async def desk() -> AsyncIterator[Desk]:
        try:
            yield Desk()
        except BaseException as error:
            ends.append(f"rolled back: {error}")
            raise
        ends.append("committed")

    app.provide(Desk, desk)

    @app.task(name="work", retry=Retry(1))
    async def work(desk: Desk, n: int, *, run: Run) -> int:
        if run.attempt == 1:
            raise ValueError("no")
        return n

    assert work.delay(4).get() == 4
    assert ends == ["rolled back: no", "committed"]


def test_a_plain_task_cannot_be_given_an_asynchronous_resource(app: Errands, runs: InlineRuns) -> None:
    @asynccontextmanager
    async def desk() -> AsyncIterator[Desk]:
        yield Desk()

    app.provide(Desk, desk)

    @app.task(name="work")
    def work(desk: Desk) -> None: ...

    assert "async def" in str(work.delay().result)


def test_a_factory_may_look_at_the_run(app: Errands, runs: InlineRuns) -> None:
    @contextmanager
    def desk(run: Run) -> Iterator[Desk]:
        made = Desk()
        made.ends.append(run.task)
        yield made

    app.provide(Desk, desk)

    @app.task(name="work")
    def work(desk: Desk) -> list[str]:
        return desk.ends

    assert work.delay().get() == ["work"]


async def test_called_directly_a_task_is_its_function(app: Errands) -> None:
    app.provide(Desk, lambda: None)

    @app.task(name="work")
    async def work(desk: Desk, n: int) -> tuple[Desk, int]:
        return desk, n

    mine = Desk()
    assert await work(mine, 3) == (mine, 3)


def test_secrets_stay_out_of_everything_that_is_told(app: Errands, runs: InlineRuns) -> None:
    seen = []

    @app.task(name="reset", retry=Retry(1))
    def reset(email: str, token: Secret[str]) -> None:
        seen.append(token)
        try:
            raise KeyError(token)
        except KeyError as exc:
            raise RuntimeError(f"cannot use {token}") from exc

    result = reset.delay("a@b.c", token="open-sesame-1234")
    assert seen == ["open-sesame-1234"] * 2
    assert "sesame" not in str(result.result)
    assert b"sesame" not in b"".join(event.to_json() for event in runs.events)
    assert "***" in str(result.result)


def test_signatures_seal_secrets(app: Errands) -> None:
    @app.task(name="reset")
    def reset(email: str, token: Secret[str]) -> None: ...

    assert "sesame" not in str(dict(reset.s("a@b.c", token="open-sesame")))
    with pytest.raises(InvalidArguments, match="by keyword"):
        reset.s("a@b.c", "open-sesame")


def test_owners_are_handed_on(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="child")
    def child(*, run: Run) -> str | None:
        return run.owner

    @app.task(name="parent")
    def parent() -> Any:
        return child.delay().get(disable_sync_subtasks=False)

    with app.acting_as("7"):
        assert parent.delay().get() == "7"
    assert child.apply_async(owner="8").get() == "8"
    assert child.delay().get() is None


def test_too_large_a_payload_is_refused_with_advice(app: Errands) -> None:
    """Mistake 15: image bytes were passed in a JSON message."""

    @app.task(name="big")
    def big(data: str) -> None: ...

    with pytest.raises(PayloadTooLarge, match="reference"):
        big.delay("x" * 70_000)


def test_an_undeclared_queue_is_refused_by_name(tmp_path: Path) -> None:
    """Mistakes 2 and 3: tasks fell into a queue that no worker read."""
    app = Errands("queues", settings=Settings(home=tmp_path), queues=[Queue("emails")], set_as_current=False)

    @app.task(name="lost", queue="emials")
    def lost() -> None: ...

    with pytest.raises(ConfigurationError, match="'emials'"):
        app.finalize()


def test_a_task_waits_where_it_says_whatever_it_is_called(tmp_path: Path) -> None:
    """Mistake 2: queues were routed by module, tasks were named otherwise."""
    app = Errands("queues", settings=Settings(home=tmp_path), set_as_current=False)

    @app.task(name="send_welcome_email", queue="emails", priority=7)
    def send_welcome_email() -> None: ...

    app.finalize()
    routed = app.amqp.router.route({}, "send_welcome_email", task_type=app.tasks["send_welcome_email"])
    assert routed["queue"].name == "emails"
    assert routed["priority"] == 7
    assert app.queue_names == ["celery", "emails"]


def test_start_refuses_a_schedule_of_an_unknown_task(app: Errands, runs: InlineRuns) -> None:
    """Mistake 1: scheduled tasks lived in modules that no worker imported."""
    app.conf.beat_schedule = {"nightly": {"task": "cleanup_everything", "schedule": 60}}
    with pytest.raises(ConfigurationError, match=r"'nightly'.*'cleanup_everything'"):
        app.check()


def test_start_refuses_pickle(app: Errands, runs: InlineRuns) -> None:
    app.conf.accept_content = ["json", "pickle"]
    with pytest.raises(ConfigurationError, match="pickle"):
        app.check()


def test_start_refuses_secrets_without_a_key(tmp_path: Path) -> None:
    app = Errands("keyless", settings=Settings(home=tmp_path, inline=True), set_as_current=False)

    @app.task(name="reset")
    def reset(token: Secret[str]) -> None: ...

    with pytest.raises(ConfigurationError, match="ERRANDS_SECRET_KEYS"):
        app.check()


def test_aliases_answer_to_old_names(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="new_name", aliases=("old_name",))
    def renamed(n: int) -> int:
        return n

    assert app.send_task("old_name", (3,)).get() == 3


def test_progress_is_throttled_but_the_last_word_is_heard(
    app: Errands, runs: InlineRuns, errands_clock: FakeClock
) -> None:
    @app.task(name="long")
    def long(*, run: Run) -> None:
        for n in range(1, 101):
            run.progress(n, 100, f"row {n}")
            errands_clock.advance(0.01)

    result = long.delay()
    told = [e.progress for e in events_of(runs, result.id) if e.kind is Kind.PROGRESS]
    assert 4 <= len(told) <= 6
    assert told[-1] == {"current": 100, "total": 100, "percentage": 100, "note": "row 100"}
    last = events_of(runs, result.id)[-1]
    assert last.progress == told[-1]
