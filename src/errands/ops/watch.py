"""Watching a run: what a watcher is told, from now on or from where it was cut off, to the run's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from errands.broker.events import START, EventStream
from errands.core.errors import ErrandsError
from errands.core.events import Event, Kind
from errands.core.secrets import mask
from errands.ops.access import Person
from errands.ops.batches import is_batch
from errands.ops.host import App
from errands.ops.live import FellBehind, Follower, Found, Subscription
from errands.ops.probes import broker_errors
from errands.ops.run_view import RunView
from errands.ops.views import Ops

PING_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_PAGE, _MOST_PAGES = 1_000, 20


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell a watcher. All empty, it says only that the connection is alive.

    `id` is what the watcher names to go on after this message; `reconnect` asks it to come back after so many
    seconds.
    """

    event: str | None = None
    data: dict[str, Any] | None = None
    id: str | None = None
    reconnect: float | None = None


class Live:
    """Lets people watch runs.

    Args:
        app: an `Errands` app.
        ping_seconds: how often a watcher of a quiet run is told that the connection is alive.
    """

    def __init__(self, app: App, *, ping_seconds: float = PING_SECONDS) -> None:
        self._app = app
        self._ops = Ops(app)
        self.ping_seconds = ping_seconds
        self._followers: WeakKeyDictionary[asyncio.AbstractEventLoop, Follower] = WeakKeyDictionary()

    @property
    def follower(self) -> Follower:
        """The follower of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._followers.get(loop)
        if found is None:
            found = self._followers[loop] = Follower(self._app.clients, self._app.keys.events)
        return found

    async def watch(self, person: Person, run_id: str, after: str | None = None) -> Watch | None:
        """Begin to watch a run.

        Args:
            person: who watches.
            run_id: the run.
            after: the id of the last message that was received before the connection broke; what followed it
                is told first, as far as the stream still has it.

        Returns:
            An async iterator of messages, to be closed; None when there is nothing more to tell.

        Raises:
            RunNotFound: there is no such run, or it is somebody else's.
            BrokerUnavailable, RecordUnavailable: a server does not answer.
        """
        after = after if after and _is_id(after) else None
        view = await asyncio.to_thread(self._ops.seen, person, run_id)
        if self._app.settings.inline:
            return None if after and view.state.final else Watch(self, person, view, "1-0", None, None)
        subscription = await self.follower.subscribe(run_id)
        try:
            position, missed = await asyncio.to_thread(self._missed, run_id, after)
            # Read after the position was: the view holds at least all that happened up to there.
            view = await asyncio.to_thread(self._ops.seen, person, run_id)
        except BaseException:
            subscription.close()
            raise
        if missed == [] and view.state.final:
            subscription.close()
            return None
        return Watch(self, person, view, position, missed, subscription)

    async def look(self, run_id: str) -> RunView | None:
        """The run now; None when nobody can say."""
        try:
            return await asyncio.to_thread(self._ops.find, run_id)
        except ErrandsError:
            return None

    def _missed(self, run_id: str, after: str | None) -> tuple[str, list[Found] | None]:
        """The stream's present end, and the run's events between `after` and there; None when not all of them
        are kept."""
        stream = EventStream(self._app.valkey, self._app.keys.events)
        with broker_errors():
            end = stream.last_id()
            if after is None or order(after) > order(end):
                return end, None
            first = stream.read(START, 1)
            if not first or order(first[0][0]) > order(after):
                return end, None
            found: list[Found] = []
            for _ in range(_MOST_PAGES):
                page = stream.read(after, _PAGE)
                found += [(name, event) for name, event, _ in page if event and event.run_id == run_id]
                if len(page) < _PAGE:
                    return max(end, page[-1][0] if page else end, key=order), found
                after = page[-1][0]
            return end, None


class Watch:
    """The messages for one watcher: the state now, or what was missed; then each event until the run ends."""

    def __init__(
        self, live: Live, person: Person, view: RunView, position: str, missed: list[Found] | None,
        subscription: Subscription | None,
    ) -> None:  # fmt: skip
        self._live = live
        self._person = person
        self._view = view
        self._position = position
        self._missed = missed
        self._subscription = subscription

    def close(self) -> None:
        """Stop watching. May be called twice."""
        if self._subscription is not None:
            self._subscription.close()

    @property
    def _seconds(self) -> float:
        """How long to wait for an event. A batch tells few of its steps: when quiet, it is looked at."""
        return (
            min(self._live.ping_seconds, _LOOK_SECONDS) if is_batch(self._view) else self._live.ping_seconds
        )

    async def __aiter__(self) -> AsyncIterator[Message]:
        over = self._view.state.final
        for entry_id, event in self._missed or ():
            message = self._message(entry_id, event)
            if message is not None:
                yield message
            if event.state and event.state.final:
                return
        if over or self._missed is None:
            yield self._state(self._position)
        if over or self._subscription is None:
            return
        while True:
            try:
                entry_id, event = await self._subscription.get(self._seconds)
            except TimeoutError:
                yield Message()
                view = await self._live.look(self._view.id)
                if view is not None and is_batch(view) and view.progress != self._view.progress:
                    self._view = view
                    yield Message(
                        "progress", {"task_id": view.id} | mask(view.progress or {}), self._position
                    )
                if view is not None and view.state.final:  # its last event was lost
                    self._view = view
                    yield self._state(self._position)
                    return
                continue
            except FellBehind:
                yield Message(reconnect=1.0)
                return
            if order(entry_id) <= order(self._position):
                continue
            self._position = entry_id
            message = self._message(entry_id, event)
            if message is not None:
                yield message
            if event.state and event.state.final:
                return

    def _state(self, entry_id: str) -> Message:
        return Message("state", self._view.as_dict(in_full=self._person.is_admin), entry_id)

    def _message(self, entry_id: str, event: Event) -> Message | None:
        about = {"task_id": event.run_id}
        if event.kind is Kind.LOG:
            return Message("log", about | {"at": event.at, "text": mask(event.note or "")}, entry_id)
        self._view = self._view.after(event)
        if event.kind is Kind.PROGRESS:
            return Message("progress", about | mask(event.progress or {}), entry_id)
        silent = event.state is None and event.kind is not Kind.LIMITED
        if silent or event.kind is Kind.QUEUED:  # the first state that was told is at least this
            return None
        return self._state(entry_id)


def order(entry_id: str) -> tuple[int, int]:
    """What to compare two entries' ids by."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _is_id(text: str) -> bool:
    milliseconds, _, sequence = text.partition("-")
    return text.isascii() and len(text) <= 41 and milliseconds.isdigit() and sequence.isdigit()
