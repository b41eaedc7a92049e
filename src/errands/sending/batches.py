"""Batches: how they are made, and how what follows them is made ready beforehand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from celery.canvas import Signature, chord
from kombu.utils import json as kombu_json

from errands.batch import Batch
from errands.broker.batch_counts import BatchCounts, FollowUps, Opening
from errands.core.batches import BATCH_TASK, HOUR, WEEK, BatchStatus, filling
from errands.core.errors import ConfigurationError, RunNotFound
from errands.sending.many import ManyCalls
from errands.sending.membership import OUTSIDE, NotDirect, collected

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from errands.worker.inline import InlineRuns
    from errands.worker.run import Run

_FOLLOWING = ("on_success", "on_complete")
_RELATIVE = ("countdown", "expires", "deadline")

Following: TypeAlias = Any  # a signature, a list of them, or None; Celery's classes have no types


class Batching(ManyCalls):
    """An app that makes batches."""

    if TYPE_CHECKING:
        _inline_runs: InlineRuns
        _batch_counts: BatchCounts

        def publish_committed(self, run_ids: Sequence[str]) -> None: ...

    def batch(
        self,
        name: str = "",
        *,
        on_success: Following = None,
        on_complete: Following = None,
        owner: str | None = None,
        id: str | None = None,
        open_for: float = HOUR,
        expires: float = WEEK,
    ) -> Batch:
        """Runs that are counted together, with one follow-up when all of them have ended.

            with app.batch("Reports of May", on_success=announce.s(term=5)) as batch:
                for student in students:
                    report.delay(student.id)

        What is sent inside the block is a member (`async with` does the same without holding up the loop). A
        batch without members ends with its block. See `docs/batches.md`.

        Args:
            name: what people see.
            on_success: sent once, when all members have succeeded; a signature of a task, a chain or a group,
                or several. A follow-up that asks for a `BatchStatus` by type is given it.
            on_complete: sent once, when all members have ended, however.
            owner: whose it is, as in `apply_async`.
            id: a stable one for a batch that is made by a task: a retry goes on with the batch that the
                attempt before it began. By default a new one.
            open_for: seconds; if nothing is sent for so long and the block has not ended, its process is
                taken for dead, and the batch closes and fails.
            expires: seconds; if no member ends for so long after the block, the batch is given up and fails.

        Raises:
            ConfigurationError: a follow-up is none that can wait for a batch, or a time is not above zero.
            InvalidArguments: the arguments of a follow-up do not fit its task.
        """
        for what, seconds in (("open_for", open_for), ("expires", expires)):
            if not seconds > 0:
                raise ConfigurationError(f"batch {name!r}: {what}={seconds!r} must be above zero seconds")
        following = {
            "on_success": _signatures(name, "on_success", on_success),
            "on_complete": _signatures(name, "on_complete", on_complete),
        }
        for signature in (each for signatures in following.values() for each in signatures):
            self._check_follow_up(signature)
        return Batch(
            self, id or self.new_id(), name, following=following, owner=owner, open_for=open_for,
            expires=expires,
        )  # fmt: skip

    def batch_on_commit(
        self, session: Session | AsyncSession, name: str = "", *, on_success: Following = None,
        on_complete: Following = None, owner: str | None = None, expires: float = WEEK,
    ) -> Batch:  # fmt: skip
        """`batch` for runs that are sent when `session` commits: in its block, use `delay_on_commit`.

            with app.batch_on_commit(session, "Reports of May", on_complete=tidy.s()) as batch:
                for student in students:
                    report.delay_on_commit(session, student.id)

        The batch is a row of the transaction too, and begins when its members are sent. If the transaction is
        rolled back, or the block raises, there is no batch.
        """
        batch = self.batch(name, on_success=on_success, on_complete=on_complete, owner=owner, expires=expires)
        batch.session = session
        return batch

    def write_batch(self, session: Any, opening: Opening, following: dict[str, list[Signature]]) -> None:
        """Write a batch into the outbox."""
        from errands.store import outbox

        kept = {name: [dict(each) for each in signatures] for name, signatures in following.items()}
        options = {
            "parent_id": opening.parent_id,
            "root_id": opening.root_id,
            "silence": opening.expires,
            "following": kombu_json.dumps(kept),  # type: ignore[no-untyped-call]
        }
        outbox.add(
            session, self.publish_committed, run_id=opening.id, task=BATCH_TASK, args=[opening.name],
            kwargs={}, options=options, owner=opening.owner,
        )  # fmt: skip

    def open_committed(self, row: Any, expected: int = 0) -> None:
        """Open a batch of the outbox, whose members were sent before it.

        One that was sent before is opened once more: the broker had lost it. So it had where it knows fewer
        members than `expected`.
        """
        options = row.options
        kept = kombu_json.loads(options["following"])  # type: ignore[no-untyped-call]
        following = {name: [self.signature(each) for each in signatures] for name, signatures in kept.items()}
        opening = Opening(
            id=row.id, name=row.args[0], owner=row.owner, parent_id=options["parent_id"],
            root_id=options["root_id"], open_for=HOUR, expires=options["silence"], closed=True,
            follow_ups=self.follow_ups(row.id, options["root_id"], row.owner, following),
            rebuilt=row.sent_at is not None, expected=expected,
        )  # fmt: skip
        self.batches.open(opening)

    def get_batch(self, batch_id: str) -> Batch:
        """The batch with this id: to look at it, to close it, to revoke it, to add to it. Asks nobody yet."""
        return Batch(self, batch_id)

    @property
    def batches(self) -> Any:
        """Where batches are counted: Valkey, or the memory of this process in inline mode and in tests."""
        if self.settings.inline or self.is_capturing:
            return self._inline_runs.batches
        return self._batch_counts

    @contextmanager
    def batch_before(self, run: Run) -> Iterator[BatchStatus]:
        """The batch that a run follows, as a resource.

        Raises:
            RunNotFound: the run follows no batch, or the batch ended more than a week ago.
        """
        batch_id = self.batches.followed_by(run.id)
        status = self.batches.status(batch_id) if batch_id is not None else None
        if status is None:
            raise RunNotFound(
                f"{run.task} asks for a BatchStatus, and {run.id} does not follow a batch directly, or the "
                "batch ended more than a week ago"
            )
        yield status

    # -- what follows

    def follow_ups(
        self, batch_id: str, root_id: str, owner: str | None, following: dict[str, list[Signature]]
    ) -> FollowUps:
        """Make ready what follows a batch: messages that only have to be put into their queues.

        Where Celery has to send them (another broker, an unusual option), and where times in them count from
        the sending, their signatures are kept for the beat.
        """
        timed = any(self._is_timed(each) for signatures in following.values() for each in signatures)
        if self.context().direct is not None and not timed:
            try:
                ready = [self._made_ready(following[n], n, batch_id, root_id, owner) for n in _FOLLOWING]
            except NotDirect:
                pass
            else:
                return FollowUps(ready[0], ready[1])
        kept = [
            [{"signature": dict(each), "root_id": root_id, "owner": owner} for each in following[name]]
            for name in _FOLLOWING
        ]
        return FollowUps(kept[0], kept[1], later=True)

    def send_follow_ups(self, batch_id: str, following: dict[str, list[Any]]) -> None:
        """Send what follows a batch. Sent twice, a follow-up is one run."""
        for name, kept in following.items():
            for index, item in enumerate(kept):
                signature = self.signature(item["signature"])
                self._send_follow_up(signature, name, index, batch_id, item["root_id"], item["owner"])

    def _made_ready(
        self, signatures: Sequence[Signature], name: str, batch_id: str, root_id: str, owner: str | None
    ) -> list[Any]:
        with _collecting() as calls:
            for index, signature in enumerate(signatures):
                self._send_follow_up(signature, name, index, batch_id, root_id, owner)
        return [call.operation for call in calls]

    def _send_follow_up(
        self, signature: Signature, name: str, index: int, batch_id: str, root_id: str, owner: str | None
    ) -> None:
        run_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{batch_id}:{name}:{index}"))
        with self.acting_as(owner), _outside():
            if self.settings.inline or self.is_capturing:
                self._inline_runs.batches.follows(run_id, batch_id)
            signature.clone().apply_async(task_id=run_id, parent_id=batch_id, root_id=root_id)

    def _is_timed(self, signature: Signature) -> bool:
        """Whether something in it counts from the sending, which is not yet."""
        for each in getattr(signature, "tasks", None) or [signature]:
            task = self.tasks.get(each.task)
            rules = getattr(task, "rules", None)
            declared = (
                getattr(task, "expires", None) is not None or getattr(rules, "deadline", None) is not None
            )
            if declared or any(isinstance(each.options.get(name), int | float) for name in _RELATIVE):
                return True
        return False

    def _check_follow_up(self, signature: Any) -> None:
        task = self.tasks.get(signature.task)
        if getattr(task, "function", None) is not None:
            self.checked(task, signature.args or (), signature.kwargs or {})


@contextmanager
def _collecting() -> Iterator[list[Any]]:
    """Calls that are made inside the block are collected, and not committed."""
    calls: list[Any] = []
    token = collected.set(calls)
    try:
        yield calls
    finally:
        collected.reset(token)


@contextmanager
def _outside() -> Iterator[None]:
    token = filling.set(OUTSIDE)
    try:
        yield
    finally:
        filling.reset(token)


def _signatures(batch: str, name: str, given: Following) -> list[Signature]:
    """What follows, as a list of signatures that can wait for their batch."""
    if given is None:
        return []
    found = list(given) if isinstance(given, list | tuple) else [given]
    for each in found:
        where = f"batch {batch!r}: {name}"
        if not isinstance(each, Signature):
            raise ConfigurationError(f"{where}: {each!r} is no signature; write task.s(…)")
        if isinstance(each, chord):
            raise ConfigurationError(
                f"{where}: a chord counts its members when it is sent, which is not yet; send it in a task"
            )
    return found
