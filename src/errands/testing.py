"""Helpers for the tests of applications: a pytest plugin, and the functions behind it.

An application's `conftest.py` says which app is meant:

    @pytest.fixture
    def errands_app():
        from school.app import app
        return app

Fixtures: `errands_inline` runs everything in the test; `errands_enqueued` runs nothing and remembers what was
sent; `errands_clock` is a clock that the test moves; `errands_mailbox` catches mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from errands.app import Errands
from errands.beat.rehearsal import FakeLoad, rehearse
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.events import Event, Kind
from errands.core.options import moment_of
from errands.core.schedule import DueTime
from errands.core.secrets import mask
from errands.core.states import State, celery_status
from errands.task import Task
from errands.worker.inline import InlineRuns

if TYPE_CHECKING:
    from errands.kits.mail.fake import FakeMailer

__all__ = [
    "Drained",
    "Enqueued",
    "FakeClock",
    "FakeLoad",
    "Sent",
    "assert_enqueued",
    "capture",
    "drain",
    "inline",
    "run_schedules",
]


@dataclass(frozen=True, slots=True)
class Sent:
    """A run that was sent, or would have been."""

    id: str
    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    countdown: float | None = None
    eta: Any = None

    def __str__(self) -> str:
        parts = [repr(mask(value)) for value in self.args]
        parts += [f"{name}={mask(value)!r}" for name, value in self.kwargs.items()]
        wait = f" in {self.countdown:g} s" if self.countdown else ""
        return f"{self.task}({', '.join(parts)}){wait}"


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of a run that `drain` ran."""

    sent: Sent
    status: str
    value: Any


class Enqueued:
    """What was sent while nothing was run."""

    def __init__(self, app: Errands, items: list[dict[str, Any]]) -> None:
        self.app = app
        self._items = items

    @property
    def sent(self) -> list[Sent]:
        """Everything sent so far and not drained, oldest first."""
        return [_sent(item) for item in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def matching(self, task: Task[..., Any] | str, *args: Any, **kwargs: Any) -> list[Sent]:
        """Those of `task` whose arguments include these: by position from the first, by name in any order.

        A parameter matches however it was passed. Secret arguments are compared by their values.
        """
        name = task if isinstance(task, str) else task.name
        declared = self.app.tasks[name]
        wanted = declared.arguments.named(args, kwargs)
        found = []
        for sent in self.sent:
            if sent.task == name:
                opened = declared.arguments.restore(sent.args, sent.kwargs, self.app.keyring)
                has = declared.arguments.named(*opened)
                if all(key in has and has[key] == value for key, value in wanted.items()):
                    found.append(sent)
        return found

    def assert_enqueued(self, task: Task[..., Any] | str, *args: Any, **kwargs: Any) -> Sent:
        """Fail unless such a run was sent; the failure lists what *was* sent. Returns the newest match."""
        __tracebackhide__ = True
        found = self.matching(task, *args, **kwargs)
        if not found:
            name = task if isinstance(task, str) else task.name
            wanted = Sent("", name, args, kwargs)
            listed = "\n".join(f"  {sent}" for sent in self.sent) or "  nothing at all"
            pytest.fail(f"expected to be enqueued:\n  {wanted}\nwhat was enqueued:\n{listed}", pytrace=False)
        return found[-1]

    def assert_not_enqueued(self, task: Task[..., Any] | str, *args: Any, **kwargs: Any) -> None:
        """Fail if such a run was sent."""
        __tracebackhide__ = True
        found = self.matching(task, *args, **kwargs)
        if found:
            pytest.fail("not expected, but enqueued:\n" + "\n".join(f"  {s}" for s in found), pytrace=False)

    def drain(self, *, throw: bool = True, most: int = 1000) -> list[Drained]:
        """Run what was sent and all that it sends in turn, in this process, until nothing is left.

        Args:
            throw: raise the first error of a run that is over; else note it and go on.
            most: runs after which something is taken to send itself for ever.
        """
        done: list[Drained] = []
        with _inline_mode(self.app):
            while self._items:
                if len(done) >= most:
                    raise RuntimeError(f"drain: {most} runs, and still more: does a task send itself?")
                item = self._items.pop(0)
                sent = _sent(item)
                if self._is_late(item):
                    done.append(Drained(sent, celery_status(State.EXPIRED), None))
                    continue
                task = self.app.tasks[sent.task]
                result = task.apply(
                    sent.args, sent.kwargs, task_id=sent.id, throw=throw, headers=item.get("headers")
                )
                done.append(Drained(sent, result.state, result.result))
        return done

    def _is_late(self, item: dict[str, Any]) -> bool:
        """Whether a run has expired by the clock, as the worker that takes it finds out; then it is told."""
        now, sent_at = clock.timestamp(), item["headers"]["errands"]["queued_at"]
        expires = moment_of(item.get("expires"), sent_at)
        if expires is None or now < expires:
            return False
        self.app.live.record(Event(kind=Kind.EXPIRED, run_id=item["id"], at=now, task=item["task"]))
        return True


@contextmanager
def inline(app: Errands) -> Iterator[InlineRuns]:
    """Run everything that is sent inside the block at once, in this process, retries and follow-ups included.

    No broker is touched. Gives the record of what happened: `runs.get(id)`, `runs.events`.
    """
    with _inline_mode(app) as runs:
        runs.clear()
        app.inline_effects.clear()
        yield runs


@contextmanager
def capture(app: Errands) -> Iterator[Enqueued]:
    """Send nothing inside the block; remember what would have been sent."""
    with app.capturing() as items:
        yield Enqueued(app, items)


def run_schedules(app: Errands, until: datetime, *, load: FakeLoad | None = None) -> list[DueTime]:
    """Let the time pass up to `until`, and send what the app's schedules say is due on the way.

    Inside `inline` the runs are run, inside `capture` they are remembered. The clock must be a `FakeClock`;
    it moves on to each due time in turn, and to `until` in the end.

    Args:
        app: its schedules, as the code declares them; each is first due after the present moment.
        until: with a time zone.
        load: what conditions (`only_if`) are to find; by default nothing waits and no processor is busy.

    Returns:
        What became of each due time, in order: `schedule`, `due`, `outcome`, `run_id`, `reason`.

    Raises:
        RuntimeError: the clock is the real one.
    """
    return rehearse(app, until, load)


def assert_enqueued(enqueued: Enqueued, task: Task[..., Any] | str, *args: Any, **kwargs: Any) -> Sent:
    """`enqueued.assert_enqueued(…)` as a function."""
    __tracebackhide__ = True
    return enqueued.assert_enqueued(task, *args, **kwargs)


def drain(enqueued: Enqueued, **options: Any) -> list[Drained]:
    """`enqueued.drain(…)` as a function."""
    return enqueued.drain(**options)


def events_of(runs: InlineRuns, run_id: str) -> list[Event]:
    """What happened to one run in inline mode, in order."""
    return [event for event in runs.events if event.run_id == run_id]


@contextmanager
def _inline_mode(app: Errands) -> Iterator[InlineRuns]:
    before = app.settings.inline, app.conf.task_always_eager
    app.settings.inline = app.conf.task_always_eager = True
    try:
        runs = app.live
        assert isinstance(runs, InlineRuns)  # noqa: S101 — inline mode is what we just chose
        yield runs
    finally:
        app.settings.inline, app.conf.task_always_eager = before


def _sent(item: dict[str, Any]) -> Sent:
    return Sent(
        item["id"], item["task"], item["args"], item["kwargs"], item.get("countdown"), item.get("eta")
    )


@pytest.fixture
def errands_app() -> Errands:
    """The app under test; to be overridden in the application's `conftest.py`."""
    pytest.fail(
        "define a fixture `errands_app` in your conftest.py that returns your Errands app", pytrace=False
    )


@pytest.fixture
def errands_inline(errands_app: Errands) -> Iterator[InlineRuns]:
    """Everything sent runs at once, in the test."""
    with inline(errands_app) as runs:
        yield runs


@pytest.fixture
def errands_enqueued(errands_app: Errands) -> Iterator[Enqueued]:
    """Nothing sent runs; the fixture remembers it, and `drain()` runs it."""
    with capture(errands_app) as enqueued:
        yield enqueued


@pytest.fixture
def errands_clock() -> Iterator[FakeClock]:
    """A clock that stands at noon of 2026-01-01 UTC until the test moves it; retries move it on."""
    fake = FakeClock()
    with clock.use(fake):
        yield fake


@pytest.fixture
def errands_mailbox(errands_app: Errands) -> Iterator[FakeMailer]:
    """The app's mail ends here: `mailbox.outbox`."""
    from errands.kits.mail import Mailer
    from errands.kits.mail.fake import FakeMailer

    fake = FakeMailer()
    with errands_app.resources.replaced(Mailer, fake):
        yield fake
