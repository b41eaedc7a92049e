"""What people do with dead letters: send their runs again, or throw them away; one, or all that match."""

from __future__ import annotations

import base64
import json
from typing import Any

from errands.broker.runs import LiveRun
from errands.broker.streams.dead_letters import parts_of
from errands.core.errors import ActionRefused, RunNotFound, UntrustedMessage
from errands.core.states import State
from errands.ops import probes
from errands.ops.access import Person, require_admin
from errands.ops.actions import Actions, Message
from errands.ops.run_view import RunView
from errands.store import letters, reads, writes
from errands.store.letters import LetterFilter
from errands.store.rows import DeadLetterRow

_NOT_AGAIN = {
    State.SUCCEEDED: "its run has succeeded since: to do it once more, retry the run itself",
    State.REVOKED: "its run was revoked since: if it is wanted after all, retry the run itself",
}
_MOST_TOLD = 100


class DeadLetters(Actions):
    """Deeds on an app's dead letters."""

    def replay(
        self, person: Person, letter_id: str, *, reason: str | None = None, trust: bool = False
    ) -> dict[str, Any]:
        """Send the run of a dead letter again, once what was wrong is mended.

        It is the same run that goes on, under its id. One that has succeeded or was revoked since is left
        alone.

        Args:
            person: who does it.
            letter_id: the dead letter's id.
            reason: for the audit trail.
            trust: send it also if its message is not signed by us: you know where it came from.

        Raises:
            NotAllowed: `person` is no admin.
            RunNotFound: there is no such dead letter.
            ActionRefused: it was sent again already; or it holds no message that could be sent, or none that
                could be trusted.
            BrokerUnavailable, RecordUnavailable: a server does not answer.
        """
        require_admin(person, "replay dead letters")
        return self._replay(person, self._letter(letter_id), reason, trust)

    def replay_all(
        self, person: Person, match: LetterFilter, *, reason: str | None = None, trust: bool = False,
        dry_run: bool = False, limit: int = 100, after: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Send the runs of all dead letters that match again, the oldest first, each as `replay` does.

        Args:
            match: which ones; those that were sent again already are never among them.
            dry_run: only count them.
            limit: how many at most in this call.
            after: go on where the answer of an earlier call ended.
            person, reason, trust: as with `replay`.

        Returns:
            matched (how many there are in all), replayed, refused ([{id, why}], the first hundred), and
            `after`: None once there are no more.

        Raises:
            NotAllowed, BrokerUnavailable, RecordUnavailable: as `replay`; what was sent by then stays sent.
            ActionRefused: `after` is none of ours.
        """
        require_admin(person, "replay dead letters")
        match = _replace(match, replayed=False)
        matched, found, more = self._page(match, 0 if dry_run else limit, after)
        done, refused = 0, []
        for letter in found:
            try:
                self._replay(person, letter, reason, trust)
                done += 1
            except ActionRefused as exc:
                refused.append({"id": letter.id, "why": str(exc)})
        return {
            "matched": matched, "replayed": done, "refused": refused[:_MOST_TOLD], "after": more,
            "dry_run": dry_run,
        }  # fmt: skip

    def delete(self, person: Person, letter_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Throw a dead letter away; its run stays as it is. Arguments and errors as with `replay`."""
        require_admin(person, "delete dead letters")
        letter = self._letter(letter_id)
        with self._audited(person, "delete_dead_letter", letter.id, reason, _told(letter)) as connection:
            letters.remove(connection, [letter.id])
        return {"id": letter.id, "deleted": 1}

    def delete_all(
        self, person: Person, match: LetterFilter, *, reason: str | None = None, dry_run: bool = False,
        limit: int = 1000, after: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Throw all dead letters that match away, a page a call: arguments and errors as with `replay_all`.

        Returns:
            matched, deleted, and `after`: None once there are no more.
        """
        require_admin(person, "delete dead letters")
        matched, found, more = self._page(match, 0 if dry_run else limit, after)
        if found:
            details = {"count": len(found), "task": match.task, "queue": match.queue, "text": match.reason}
            with self._audited(person, "delete_dead_letters", f"{len(found)}", reason, details) as connection:
                letters.remove(connection, [letter.id for letter in found])
        return {"matched": matched, "deleted": len(found), "after": more, "dry_run": dry_run}

    # -- one letter

    def _letter(self, letter_id: str) -> DeadLetterRow:
        letter = None
        if letter_id.isprintable():
            with probes.record_errors(), self._app.database.reading() as connection:
                letter = reads.dead_letter(connection, letter_id)
        if letter is None:
            raise RunNotFound("there is no dead letter with this id")
        return letter

    def _replay(
        self, person: Person, letter: DeadLetterRow, reason: str | None, trust: bool
    ) -> dict[str, Any]:
        if letter.replayed_at is not None:
            raise ActionRefused("this dead letter was sent again already")
        kept = letter.message or {}
        message = _message_in(kept)
        if message is None or not letter.run_id or not letter.task:
            raise ActionRefused("this dead letter holds no message that could be sent again")
        if letter.task not in self._app.tasks:
            raise ActionRefused(f"no task is registered under the name {letter.task!r}")
        why_not = self._distrust(kept)
        if why_not is not None and not trust:
            raise ActionRefused(
                f"its message is not trusted ({why_not}): if you know its sender, replay it with `trust`"
            )
        try:
            run = self._ops.find(letter.run_id)
        except RunNotFound:  # older than the record
            run = RunView(id=letter.run_id, state=State.FAILED, task=letter.task, queue=letter.queue)
        if run.state in _NOT_AGAIN:
            raise ActionRefused(_NOT_AGAIN[run.state])
        details = {"task_id": letter.run_id, "trust": trust}
        with self._audited(person, "replay", letter.id, reason, details) as connection:
            if not writes.mark_replayed(connection, letter.id):
                raise ActionRefused("this dead letter was sent again already")
            hop = self._reopen(run, message) if run.state.final else self._hop_of_waiting(run, kept)
        return self._send_again(run, message, hop)

    def _distrust(self, kept: dict[str, Any]) -> str | None:
        """Why the message as it came is not to be trusted; None where it is, or a worker has read it."""
        signer = self._app.signer
        if signer is None or "args" in kept:
            return None
        try:
            signed = signer.check(*parts_of(kept))
        except UntrustedMessage as exc:
            return str(exc)
        return None if signed or self._app.settings.accept_unsigned else "it is not signed"

    def _hop_of_waiting(self, run: RunView, kept: dict[str, Any]) -> int:
        """A worker did not trust the message of a run that waits for it still: the message is put back.

        With the same hop it is a second copy of the first, if that should turn up: only one of them starts.
        """
        if run.state is State.RUNNING or "headers" not in kept:
            raise ActionRefused(f"the run is {run.state}: only one that has ended can be tried again")
        with probes.broker_errors():
            live: LiveRun | None = self._app.live.get(run.id)
        last = live.hop if live is not None else 0
        marks = kept["headers"].get("errands")
        given = marks.get("hop", 0) if isinstance(marks, dict) else 0
        if given in (last, last + 1):
            return int(given)
        return last + 1 if run.state is State.RETRYING else last

    # -- many

    def _page(
        self, match: LetterFilter, limit: int, after: str | None
    ) -> tuple[int, list[DeadLetterRow], str | None]:
        """How many match in all, the next of them, and where to go on."""
        with probes.record_errors(), self._app.database.reading() as connection:
            matched = letters.count(connection, match)
            try:
                found = letters.page(connection, match, after=after, limit=limit) if limit else []
            except ValueError as exc:
                raise ActionRefused("`after` is the one that an earlier answer has") from exc
        return matched, found, letters.cursor(found[-1]) if limit and len(found) == limit else None


def _replace(match: LetterFilter, **changes: Any) -> LetterFilter:
    values = {name: getattr(match, name) for name in LetterFilter.__slots__}
    return LetterFilter(**{**values, **changes})


def _told(letter: DeadLetterRow) -> dict[str, Any]:
    return {"task": letter.task, "task_id": letter.run_id, "queue": letter.queue}


def _message_in(kept: dict[str, Any]) -> Message | None:
    """The arguments in a dead letter: as a worker wrote them, or in the body of an undelivered message."""
    if "args" in kept:
        return kept["args"], kept.get("kwargs") or {}
    if kept.get("truncated") or kept.get("content_type") != "application/json":
        return None
    try:
        args, kwargs, _embedded = json.loads(base64.b64decode(kept["body"]))
    except (KeyError, ValueError, TypeError):
        return None
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else None
