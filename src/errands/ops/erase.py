"""Erasing a person: all content that is kept of their runs (GDPR, article 17)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import OperationalError, ProgrammingError

from errands.broker import forgetting
from errands.broker.streams import moment
from errands.core import clock
from errands.core.errors import ActionRefused
from errands.core.events import Event, Kind
from errands.core.states import State
from errands.ops import batches, probes, queues
from errands.ops.access import Person, require_admin
from errands.ops.actions import Actions
from errands.store import deliveries, outbox, people, writes
from errands.store.rows import OutboxRow

logger = logging.getLogger("errands.ops")

# What an application or a kit keeps itself: called with the person's id and the ids of their runs, it erases
# what it has of them, and says how much that was. It may be called again.
Eraser = Callable[[str, list[str]], "int | None"]

_ROUNDS = 5  # of ending what waits; new runs may come meanwhile
_MOST_TOLD = 10


class Erasing(Actions):
    """Erases people from an app's runs."""

    def erase_person(
        self, person: Person, who: str, *, reason: str | None = None, dry_run: bool = False,
        patience: float = 10.0,
    ) -> dict[str, Any]:  # fmt: skip
        """Clear the content of all runs that belong to a person (`owner`) or are about them (`Subject`).

        Arguments, results, progress, notes, error texts and whose they were go, from the ledger, Valkey, the
        outbox, dead letters and results, and what `app.on_erase` names. What stays: that there were runs of
        some task, their states and times. Runs that wait are revoked first. Doing it again is safe.

        Args:
            person: who does it.
            who: the id of the person to erase, as runs have it.
            reason: for the audit trail, which keeps the id: somebody must be able to show that it was done.
            dry_run: only count.
            patience: seconds to wait for the ledger, which has to know of all runs.

        Returns:
            runs, revoked (those that waited), unsent (in the outbox), dead_letters, erasers (what each
            of them said), dry_run.

        Raises:
            NotAllowed: `person` is no admin.
            ActionRefused: some of the runs are at work: let them end, or revoke them. The ledger is behind.
            BrokerUnavailable, RecordUnavailable: a server does not answer. Do it again.
        """
        require_admin(person, "erase people")
        if not who or not who.isprintable() or len(who) > 255:
            raise ActionRefused("nobody has an id like this")
        if self._app.settings.inline:
            return self._inline(who, dry_run)
        until = self._ledger_is_there(patience)
        self._none_at_work(who)
        if dry_run:
            with probes.record_errors(), self._app.database.reading() as connection:
                found = len(people.run_ids(connection, who))
                waiting = len(people.open_run_ids(connection, who))
            return _answer(found, waiting, len(self._unsent(who)), 0, {}, dry_run=True)
        unsent = self._take_unsent(who)
        revoked = 0
        for _ in range(_ROUNDS):
            ended = self._end_waiting(who, person)
            revoked += ended
            until = self._ledger_is_there(patience)
            if not ended:
                break
        return self._clear(person, who, reason, until, revoked, unsent)

    # -- what there is

    def _ledger_is_there(self, patience: float) -> str:
        """Wait until the ledger has read all that was told by now. Returns the entry up to which it has."""
        with probes.broker_errors():
            newest: Any = self._app.valkey.xrevrange(self._app.keys.events, count=1)
        last = newest[0][0].decode() if newest else writes.START
        deadline = time.monotonic() + patience
        while True:
            with probes.record_errors(), self._app.database.reading() as connection:
                position = writes.read_position(connection, self._app.keys.events).entry_id
            if writes.entry_order(position) >= writes.entry_order(last):
                return last
            if time.monotonic() > deadline:
                raise ActionRefused(
                    "the ledger does not know of the newest runs yet: is a beat running? Try again soon"
                )
            time.sleep(0.1)

    def _open(self, who: str) -> dict[str, State]:
        with probes.record_errors(), self._app.database.reading() as connection:
            ids = people.open_run_ids(connection, who)
        with probes.broker_errors():
            live = self._app.live.get_many(ids)
        # One that Valkey has forgotten will not go on: its message would be refused, or is gone.
        return {run_id: run.state for run_id, run in live.items() if not run.state.final}

    def _none_at_work(self, who: str) -> None:
        running = sorted(run_id for run_id, state in self._open(who).items() if state is State.RUNNING)
        if running:
            more = ", …" if len(running) > _MOST_TOLD else ""
            raise ActionRefused(
                f"{len(running)} runs are at work with this person's data: let them end or revoke them, then "
                f"erase again: {', '.join(running[:_MOST_TOLD])}{more}"
            )

    def _unsent(self, who: str) -> list[str]:
        tasks = {
            name: task for name, task in self._app.tasks.items()
            if getattr(task, "function", None) is not None and task.arguments.subject is not None
        }  # fmt: skip
        with probes.record_errors(), self._app.database.reading() as connection:
            rows = people.unsent(connection, who, sorted(tasks))
        return [
            row.id
            for row in rows
            if row.owner == who
            or _subject_of(row) == who
            or (row.task in tasks and tasks[row.task].arguments.subject_of(row.args, row.kwargs) == who)
        ]

    # -- ending and clearing

    def _take_unsent(self, who: str) -> int:
        found = self._unsent(who)
        with probes.record_errors():
            outbox.remove(self._app.database, found)
        return len(found)

    def _end_waiting(self, who: str, person: Person) -> int:
        """Revoke what waits. Returns how many runs that were."""
        waiting = self._open(who)
        if waiting:
            moment.let_pass(None)
        for run_id in waiting:
            run = self._ops.find(run_id)
            if run.state.final:
                continue
            note = f"the person was erased by {person.id}"
            if batches.is_batch(run):
                batches.revoke(self._app, run_id, note)
                continue
            event = Event(
                kind=Kind.REVOKED, run_id=run_id, at=clock.timestamp(), task=run.task, queue=run.queue,
                note=note,
            )  # fmt: skip
            self._record(event)
            self._take_out(run_id, run.queue)
            self._tell_celery(run_id, terminate=False)
        self._none_at_work(who)
        return len(waiting)

    def _clear(
        self, person: Person, who: str, reason: str | None, until: str, revoked: int, unsent: int
    ) -> dict[str, Any]:
        app = self._app
        with probes.record_errors(), app.database.reading() as connection:
            ids = people.run_ids(connection, who)
        # The tables last: whatever fails before, the runs are found again.
        with probes.broker_errors():
            forgetting.remove_events(app.valkey, app.keys, ids, until)
            forgetting.strip_states(app.valkey, app.keys, ids)
            for queue in app.queue_names:
                queues.remove_dead(app, queue, ids)
            for run_id in ids:
                app.backend.forget(run_id)
        told = {_name(eraser): eraser(who, ids) or 0 for eraser in app.erasers}
        details = {"runs": len(ids), "revoked": revoked, "unsent": unsent, "erasers": told}
        with self._audited(person, "erase_person", who, reason, details) as connection:
            letters, elsewhere = people.clear(connection, ids)
            deliveries.erase(connection, person=who, run_ids=ids, address=None)
        app.discard_payloads([kept.key for kept in elsewhere])
        logger.info("a person was erased from %s runs", len(ids))
        return _answer(len(ids), revoked, unsent, letters, told, dry_run=False)

    def _inline(self, who: str, dry_run: bool) -> dict[str, Any]:
        """In inline mode runs are in this process alone, and none of them waits."""
        ids = self._app.live.of_person(who)  # type: ignore[attr-defined]
        if dry_run:
            return _answer(len(ids), 0, 0, 0, {}, dry_run=True)
        told = {_name(eraser): eraser(who, ids) or 0 for eraser in self._app.erasers}
        self._clear_recipients(who, ids)
        self._app.live.forget(ids)  # type: ignore[attr-defined]
        return _answer(len(ids), 0, 0, 0, told, dry_run=False)

    def _clear_recipients(self, who: str, ids: list[str]) -> None:
        """Those are in the database in inline mode too, where there is one."""
        try:
            with self._app.database.writing() as connection:
                deliveries.erase(connection, person=who, run_ids=ids, address=None)
        except (OperationalError, ProgrammingError):  # no database, or no tables: nothing was kept
            logger.debug("inline, and no recipients were kept", exc_info=True)


def _subject_of(row: OutboxRow) -> str | None:
    """Whom a run in the outbox is about, as whoever sent it said."""
    marks = ((row.options or {}).get("headers") or {}).get("errands") or {}
    subject = marks.get("subject")
    return None if subject is None else str(subject)


def _name(eraser: Eraser) -> str:
    return getattr(eraser, "__qualname__", type(eraser).__qualname__)


def _answer(
    runs: int, revoked: int, unsent: int, letters: int, erasers: dict[str, int], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "runs": runs, "revoked": revoked, "unsent": unsent, "dead_letters": letters, "erasers": erasers,
        "dry_run": dry_run,
    }  # fmt: skip
