"""A batch of runs: what is sent in its block is counted together, and something follows when all have ended.

    with app.batch("Reports of May", on_success=announce.s(term=5)) as batch:
        for student in students:
            report.delay(student.id)
    batch.status().percentage

A batch is a run itself, in state `running` until its members have ended: it stands in the ledger, tells its
progress, and is the parent of its members. Counting costs no round trip: see `broker/lua/batch.lua`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import Any, Protocol, Self

import redis

from errands.broker.batch_counts import FollowUps, Opening
from errands.broker.checks import place
from errands.broker.errors import BrokerDown
from errands.core.batches import HOUR, WEEK, BatchStatus, Membership, filling
from errands.core.errors import ActionRefused, BrokerUnavailable, RunNotFound

logger = logging.getLogger("errands")


class BatchHost(Protocol):
    """What a batch needs of its app."""

    settings: Any

    @property
    def batches(self) -> Any: ...

    @property
    def current_worker_task(self) -> Any: ...

    def write_batch(self, session: Any, opening: Opening, following: dict[str, list[Any]]) -> None: ...

    def envelope(self, given: Any, task_id: str | None, owner: str | None) -> dict[str, Any]: ...

    def follow_ups(
        self, batch_id: str, root_id: str, owner: str | None, following: dict[str, list[Any]]
    ) -> FollowUps: ...


class Batch:
    """Made by `app.batch(…)`; found again by `app.get_batch(id)`, or as `run.batch` in a member.

    The block of a new batch opens it, and closes it at its end: then no more members come. In the block of a
    batch that was found, more members are sent to it: a member may add to its own batch, which cannot end
    meanwhile. A block that raises closes its batch too, and the batch fails, since not all of it was sent:
    the members that were sent go on, `on_complete` comes after them, `on_success` does not.

    Attributes:
        id: that of its run in the ledger.
        name: as given; "" for one that was found.
    """

    def __init__(
        self,
        host: BatchHost,
        id: str,
        name: str = "",
        *,
        following: dict[str, list[Any]] | None = None,
        owner: str | None = None,
        open_for: float = HOUR,
        expires: float = WEEK,
        root_id: str | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self._host = host
        self._following = following  # None: it was made elsewhere
        self._owner = owner
        self._times = open_for, expires
        self._root_id = root_id
        self.session: Any = None  # with whose transaction it is sent
        self._token: Token[Membership | None] | None = None

    def __repr__(self) -> str:
        return f"<Batch {self.id} {self.name!r}>" if self.name else f"<Batch {self.id}>"

    # -- its block

    def __enter__(self) -> Self:
        """Open it: from now on, runs that are sent belong to it.

        Raises:
            ActionRefused: a batch with this id has ended already.
            BrokerUnavailable: Valkey does not answer.
        """
        self._enter(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if self.session is not None:
            self._write(error)
        else:
            self._end(error)

    async def __aenter__(self) -> Self:
        self._enter(await asyncio.to_thread(self._open))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if self.session is not None:  # into the session, which waits for no server here
            self._write(error)
        else:
            await asyncio.to_thread(self._end, error)

    # -- what can be asked of it, from anywhere

    def status(self) -> BatchStatus:
        """How far it is. One round trip.

        Raises:
            RunNotFound: it is not known, or not any more: a week after its end it is in the ledger only.
            BrokerUnavailable: Valkey does not answer.
        """
        with _away(self._host, self):
            found: BatchStatus | None = self._host.batches.status(self.id)
        if found is None:
            raise RunNotFound(f"there is no batch {self.id}, or it ended more than a week ago")
        return found

    async def astatus(self) -> BatchStatus:
        """`status` for asyncio code."""
        return await asyncio.to_thread(self.status)

    def close(self, *, fault: str = "") -> None:
        """Say that all of its members were sent; what its block does at its end. A second time does nothing.

        Args:
            fault: why the batch fails, whatever its members do.

        Raises:
            BrokerUnavailable: Valkey does not answer. The batch stays open, and closes by itself after
                `open_for` seconds.
        """
        with _away(self._host, self):
            self._host.batches.close(self.id, fault)

    async def aclose(self, *, fault: str = "") -> None:
        """`close` for asyncio code."""
        await asyncio.to_thread(self.close, fault=fault)

    def revoke(self, reason: str = "") -> None:
        """Let none of its members start that has not started yet; those at work go on to their end.

        The batch is `revoked` at once and takes no more members. A member that waits is revoked when a worker
        takes its message, without starting; after the last one `on_complete` comes.

        Raises:
            ActionRefused: it has ended already.
            BrokerUnavailable: Valkey does not answer.
        """
        with _away(self._host, self):
            done = self._host.batches.revoke(self.id, reason or "revoked")
        if not done:
            raise ActionRefused(f"batch {self.id} has ended already, or there is no such batch")

    async def arevoke(self, reason: str = "") -> None:
        """`revoke` for asyncio code."""
        await asyncio.to_thread(self.revoke, reason)

    # -- inside

    def _open(self) -> str:
        """Open it, if it is new. Returns the run at the top of its tree."""
        with _away(self._host, self):
            if self._following is None:
                return self._root_id or self._host.batches.root_of(self.id) or self.id
            if self.session is not None:
                return self._place()[0]
            opening = self._opening()
            outer = filling.get()
            opened = self._host.batches.open(opening, outer.id if outer is not None else None)
        if not opened:
            raise ActionRefused(f"batch {self.id} has ended: its members were sent before")
        return opening.root_id

    def _opening(self) -> Opening:
        root_id, parent_id = self._place()
        owner = self._host.envelope(None, None, self._owner)["errands"].get("owner")
        follow_ups = FollowUps()
        if self.session is None:
            follow_ups = self._host.follow_ups(self.id, root_id, owner, self._following or {})
        return Opening(
            id=self.id, name=self.name, owner=owner, parent_id=parent_id, root_id=root_id,
            follow_ups=follow_ups, open_for=self._times[0], expires=self._times[1],
        )  # fmt: skip

    def _place(self) -> tuple[str, str | None]:
        """Its place in the tree of runs: the run at the top, and the one right above it."""
        parent, outer = self._host.current_worker_task, filling.get()
        if outer is not None:
            return outer.root_id, outer.id
        if parent is not None:
            return parent.request.root_id or parent.request.id, parent.request.id
        return self.id, None

    def _enter(self, root_id: str) -> None:
        if self._token is not None:
            raise ActionRefused(f"{self!r}: its block is entered already")
        self._token = filling.set(Membership(self.id, root_id, on_commit=self.session is not None))

    def _leave(self) -> None:
        if self._token is not None:
            filling.reset(self._token)
            self._token = None

    def _write(self, error: BaseException | None) -> None:
        if error is None:
            self._host.write_batch(self.session, self._opening(), self._following or {})

    def _end(self, error: BaseException | None) -> None:
        if self._following is None:
            return
        fault = f"its block raised {type(error).__name__}: not all of it was sent" if error else ""
        try:
            self.close(fault=fault)
        except BrokerUnavailable:
            if error is None:
                raise
            logger.exception("%r stays open, and will close by itself", self)


@contextmanager
def _away(host: BatchHost, batch: Batch) -> Iterator[None]:
    """A server that is away is told as what it means to the caller."""
    try:
        yield
    except redis.RedisError as exc:
        where = f"Valkey at {place(host.settings.valkey_url)}"
        raise BrokerDown(f"{batch!r}: {where} does not answer ({exc}); try again later") from exc
