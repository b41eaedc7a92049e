"""What any screen or endpoint shows. Workers are never asked anything: what they said is read."""

from __future__ import annotations

from typing import Any

import redis
from sqlalchemy.exc import SQLAlchemyError

from errands.core.errors import RunNotFound
from errands.core.payloads import without_reference
from errands.core.personal import reveal
from errands.core.secrets import mask
from errands.ops import batches, effects, health, probes, queues, schedules, stats
from errands.ops.access import Person, may_see, require_admin
from errands.ops.errors import RecordUnavailable
from errands.ops.host import App
from errands.ops.run_view import RunView, iso
from errands.store import letters, reads
from errands.store.letters import LetterFilter

_LONGEST_ID = 255


class Ops:
    """Answers questions about an app's runs, each for the person who asks.

    A run is looked for in Valkey, where it is freshest, then in the ledger, which remembers longest, then in
    the outbox, where it is before it was sent.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    # -- one run

    def run(self, person: Person, run_id: str) -> dict[str, Any]:
        """All that `person` may know of a run; for admins with its attempts, errors in full.

        Raises:
            RunNotFound: there is no such run, or it is somebody else's.
            RecordUnavailable: the record cannot be read.
        """
        view = self.seen(person, run_id)
        answer = view.as_dict(in_full=person.is_admin)
        if person.sees_personal_data and view.message is not None:
            args, kwargs = view.message
            answer["args"] = reveal(args, self._app.keyring, view.task)
            answer["kwargs"] = reveal(without_reference(kwargs), self._app.keyring, view.task)
        if person.is_admin:
            answer["attempts"] = self._attempts(run_id)
            answer["effects"] = effects.of_run(self._app, run_id)
            answer["schedule"] = schedules.of_run(self._app, run_id)
            answer["children"] = batches.children(self._app, run_id)
        if batches.is_batch(view):
            answer["batch"] = batches.as_dict(self._app, view)
        return answer

    def status(self, person: Person, run_id: str) -> dict[str, Any]:
        """Is it over, and what came of it. Raises as `run` does."""
        return self.seen(person, run_id).as_status(in_full=person.is_admin)

    def progress(self, person: Person, run_id: str) -> dict[str, Any]:
        """How far it is. Raises as `run` does."""
        return self.seen(person, run_id).as_progress(in_full=person.is_admin)

    def seen(self, person: Person, run_id: str) -> RunView:
        """The run, if `person` may see it. Raises as `run` does."""
        try:
            view = self.find(run_id)
        except RunNotFound:
            view = None
        if view is None or not may_see(person, view):
            raise RunNotFound("there is no run with this id")
        return view

    def find(self, run_id: str) -> RunView:
        """The run, whoever asks.

        Raises:
            RunNotFound: nobody knows it.
            RecordUnavailable: the record cannot be read.
        """
        if not 0 < len(run_id) <= _LONGEST_ID or not run_id.isprintable():
            raise RunNotFound("there is no run with this id")
        view, away = self._in_valkey(run_id)
        if view is None:
            view = self._in_database(run_id)
        if view is None and away is None:
            # It may have left the outbox for Valkey between the two looks.
            view, away = self._in_valkey(run_id)
        if view is not None:
            return batches.counted(self._app, view)
        if away is not None:
            raise RecordUnavailable("Valkey does not answer; try again in a moment") from away
        raise RunNotFound("there is no run with this id")

    def message(self, view: RunView) -> tuple[list[Any], dict[str, Any]] | None:
        """The arguments that the run was sent with, secrets sealed; None where nobody kept them."""
        if view.message is not None:
            return view.message
        stored = self._in_database(view.id)
        return stored.message if stored else None

    # -- lists, for admins

    def dead_letters(
        self, person: Person, limit: int = 100, match: LetterFilter | None = None
    ) -> list[dict[str, Any]]:
        """Messages and runs that nobody tries again by itself, the newest first; all, or those that match.

        Raises:
            NotAllowed: `person` is no admin.
            RecordUnavailable: the database does not answer.
        """
        require_admin(person, "see dead letters")
        try:
            with self._app.database.reading() as connection:
                found = letters.newest(connection, match or LetterFilter(), limit)
        except SQLAlchemyError as exc:
            raise RecordUnavailable("the database does not answer") from exc
        return [
            {
                "id": letter.id,
                "task_id": letter.run_id,
                "task": letter.task,
                "queue": letter.queue,
                "reason": mask(letter.reason),
                "message": mask(letter.message),
                "at": iso(letter.at),
                "replayed_at": iso(letter.replayed_at),
            }
            for letter in found
        ]

    def workers(self, person: Person) -> list[dict[str, Any]]:
        """What each live worker last said of itself. Raises as `dead_letters` does, and BrokerUnavailable."""
        require_admin(person, "see workers")
        return [{"name": name, **facts} for name, facts in sorted(probes.live_workers(self._app).items())]

    def queues(self, person: Person) -> list[dict[str, Any]]:
        """Each queue: depth, oldest_s, delayed, held, dead, paused, workers. Raises as `workers` does."""
        require_admin(person, "see queues")
        readers = probes.readers(probes.live_workers(self._app))
        found = queues.as_dicts(self._app)
        return [{"name": name, **facts, "workers": readers.get(name, [])} for name, facts in found.items()]

    def health(self, person: Person) -> dict[str, Any]:
        """Is everything well, and if not, why. Raises NotAllowed; what is away is told in the answer."""
        require_admin(person, "see the health of the system")
        return health.check(self._app).as_dict()

    def stats(self, person: Person) -> dict[str, Any]:
        """The last 24 hours in numbers. Raises NotAllowed, RecordUnavailable, BrokerUnavailable."""
        require_admin(person, "see statistics")
        return stats.last_day(self._app)

    # -- looking

    def _in_valkey(self, run_id: str) -> tuple[RunView | None, redis.RedisError | None]:
        try:
            live = self._app.live.get(run_id)
        except redis.RedisError as exc:
            return None, exc
        return (RunView.of_live(live) if live else None), None

    def _in_database(self, run_id: str) -> RunView | None:
        try:
            with self._app.database.reading() as connection:
                row = reads.run(connection, run_id)
                if row is not None:
                    return RunView.of_row(row)
                waiting = reads.outbox_run(connection, run_id)
                return RunView.of_outbox(waiting) if waiting else None
        except SQLAlchemyError as exc:
            if self._app.settings.inline:  # runs are in memory then, and there may be no tables at all
                return None
            raise RecordUnavailable("the database does not answer, or has no tables yet") from exc

    def _attempts(self, run_id: str) -> list[dict[str, Any]]:
        try:
            with self._app.database.reading() as connection:
                rows = reads.attempts(connection, run_id)
        except SQLAlchemyError:
            return []  # the run itself was found; its history comes later
        return [
            {
                "number": row.number,
                "outcome": row.outcome,
                "worker": row.worker,
                "started_at": iso(row.started_at),
                "finished_at": iso(row.finished_at),
                "duration": row.duration,
                "error_type": row.error_type,
                "error": mask(row.error_message),
                "traceback": mask(row.error_traceback),
                "retry_at": iso(row.retry_at),
            }
            for row in rows
        ]
