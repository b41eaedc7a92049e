"""The endpoints for dead letters, and the one that erases a person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field

from errands.app import Errands
from errands.ops.access import Person
from errands.ops.dead_letters import DeadLetters
from errands.ops.erase import Erasing
from errands.ops.views import Ops
from errands.store.letters import LetterFilter

Answer = dict[str, Any]


class Match(BaseModel):
    """Which dead letters; what is left out means any."""

    model_config = {"extra": "forbid"}

    task: str | None = None
    queue: str | None = None
    reason: str | None = Field(default=None, max_length=500, description="a text that the reason holds")
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    replayed: bool | None = None

    def filter(self) -> LetterFilter:
        """As the store has it."""
        return LetterFilter(**self.model_dump())


class AskedOfLetter(BaseModel):
    """The body of an action on one dead letter."""

    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")
    trust: bool = Field(default=False, description="send it also if its message is not signed by us")


class AskedOfLetters(AskedOfLetter):
    """The body of an action on all dead letters that match."""

    match: Match = Match()
    dry_run: bool = Field(default=False, description="only count them")
    limit: int = Field(default=100, ge=1, le=1000)
    after: str | None = Field(default=None, max_length=200, description="where the last answer ended")


class AskedToErase(BaseModel):
    """The body of an erasure."""

    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")
    dry_run: bool = Field(default=False, description="only count")


def add_letters(
    router: APIRouter, app: Errands, asking: Callable[..., Person], errors: Callable[..., Any]
) -> None:
    """Add them to `router`.

    Args:
        asking: the dependency that gives the person who asks.
        errors: describes error codes, for the documentation.
    """
    ops, letters, erasing = Ops(app), DeadLetters(app), Erasing(app)

    @router.get("/api/dead-letters", responses=errors(401, 403, 503))
    def dead_letters(
        limit: int = Query(100, ge=1, le=1000),
        task: str | None = None,
        queue: str | None = None,
        reason: str | None = Query(None, max_length=500),
        since: datetime | None = None,
        until: datetime | None = None,
        replayed: bool | None = None,
        who: Person = Depends(asking),
    ) -> list[Answer]:
        """Messages and runs that nobody tries again by itself, the newest first."""
        match = LetterFilter(
            task=task, queue=queue, reason=reason, since=_aware(since), until=_aware(until), replayed=replayed
        )
        return ops.dead_letters(who, limit, match)

    @router.post("/api/dead-letters/replay", status_code=202, responses=errors(401, 403, 409, 503))
    def replay_all(asked: AskedOfLetters, who: Person = Depends(asking)) -> Answer:
        """Send the runs of all dead letters that match again, a page a call."""
        return letters.replay_all(
            who, asked.match.filter(), reason=asked.reason, trust=asked.trust, dry_run=asked.dry_run,
            limit=asked.limit, after=asked.after,
        )  # fmt: skip

    @router.post("/api/dead-letters/delete", responses=errors(401, 403, 409, 503))
    def delete_all(asked: AskedOfLetters, who: Person = Depends(asking)) -> Answer:
        """Throw all dead letters that match away, a page a call."""
        return letters.delete_all(
            who, asked.match.filter(), reason=asked.reason, dry_run=asked.dry_run, limit=asked.limit,
            after=asked.after,
        )  # fmt: skip

    @router.post(
        "/api/dead-letters/{letter_id}/replay", status_code=202, responses=errors(401, 403, 404, 409, 503)
    )
    def replay(letter_id: str, asked: AskedOfLetter | None = None, who: Person = Depends(asking)) -> Answer:
        """Send the run of a dead letter again."""
        asked = asked or AskedOfLetter()
        return letters.replay(who, letter_id, reason=asked.reason, trust=asked.trust)

    @router.delete("/api/dead-letters/{letter_id}", responses=errors(401, 403, 404, 503))
    def delete(letter_id: str, asked: AskedOfLetter | None = None, who: Person = Depends(asking)) -> Answer:
        """Throw a dead letter away."""
        return letters.delete(who, letter_id, reason=asked.reason if asked else None)

    @router.post("/api/people/{person_id}/erase", responses=errors(401, 403, 409, 503))
    def erase(person_id: str, asked: AskedToErase | None = None, who: Person = Depends(asking)) -> Answer:
        """Clear the content of all runs that belong to a person or are about them."""
        asked = asked or AskedToErase()
        return erasing.erase_person(who, person_id, reason=asked.reason, dry_run=asked.dry_run)


def _aware(moment: datetime | None) -> datetime | None:
    """In local time where no zone is told, as `datetime.astimezone` has it."""
    return moment if moment is None else moment.astimezone()
