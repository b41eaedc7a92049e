"""Looking at a run and its followers, once or for as long as they are at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from errands.core.errors import RunNotFound
from errands.doors.fastapi import Person
from errands.ops.access import ADMIN
from errands.ops.views import Ops
from errands.ops.watch import Live, Message, Watch
from school.app import app
from school.progress.shown import Run, followers, shown

# Whoever holds a link may see what `shown` lets through, whosever the run is.
_ANYBODY = Person("the holder of a link", frozenset({ADMIN}))
_live = Live(app)


def look(task_id: str) -> dict[str, Any]:
    """What the page of a run shows now.

    Raises:
        RunNotFound: nobody knows the run, or not any more.
        RecordUnavailable: a server does not answer.
    """
    ops = Ops(app)
    run = ops.find(task_id).as_dict(in_full=False)
    steps: list[Run] = []
    for step in followers(run):
        try:
            steps.append(ops.find(step).as_dict(in_full=False))
        except RunNotFound:
            break  # it comes when the one before has ended
    return shown(run, steps)


class Watching:
    """What to tell a watcher: what the page shows, whenever it changes, until it changes no more."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    @classmethod
    async def begin(cls, task_id: str) -> Watching:
        """Begin to watch a run. Raises as `look` does, and BrokerUnavailable."""
        return cls(await _watch(task_id))

    def close(self) -> None:
        """Stop watching. May be called twice."""
        self._watch.close()

    async def __aiter__(self) -> AsyncIterator[Message]:
        run: Run = {}
        before = None
        async for run, message in _states(self._watch):
            if message is not None:
                yield message
            elif (now := shown(run)) != before:
                yield Message("state", now)
                before = now
        steps: list[Run] = []
        for step in followers(run) if run else ():
            self._watch.close()
            try:
                self._watch = await _watch(step)
            except RunNotFound:
                return  # not sent yet, or never: the browser comes back and asks again
            steps.append({})
            async for steps[-1], message in _states(self._watch):
                if message is not None:
                    yield message
                elif (now := shown(run, steps)) != before:
                    yield Message("state", now)
                    before = now
            if before is None or before["ready"]:
                return


async def _watch(task_id: str) -> Watch:
    watch = await _live.watch(_ANYBODY, task_id)
    assert watch is not None  # noqa: S101 — that is for those who name a last event
    return watch


async def _states(watch: Watch) -> AsyncIterator[tuple[Run, Message | None]]:
    """The run after each of its events; with a message that only keeps the connection, that message."""
    run: Run = {}
    async for message in watch:
        if message.data is None:
            yield run, message
        elif message.event == "state":
            run = message.data
            yield run, None
        elif message.event == "progress" and run:
            run = run | {"progress": message.data}
            yield run, None
