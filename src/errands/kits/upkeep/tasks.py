"""The task of one clean-up."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_type_hints

from celery.exceptions import SoftTimeLimitExceeded

from errands import Database, Discard, Retry, Run
from errands.core import clock
from errands.kits.upkeep.calling import called
from errands.kits.upkeep.declaration import Upkeep
from errands.kits.upkeep.folder import OldFiles
from errands.kits.upkeep.rows import OldRows

if TYPE_CHECKING:
    from errands import Errands

_RETRY = Retry(3, first=60, most=600)
_MOST_REST = 1.0  # seconds

Result = dict[str, Any]


def declare(app: Errands, upkeep: Upkeep, database: Callable[[], Database], rows: OldRows | None) -> Any:
    """Make the task, named as the clean-up is.

    Raises:
        ConfigurationError: a parameter of `call` is not one that can be given.
    """
    if rows is not None:
        function = _of_rows(upkeep, rows, database)
    elif upkeep.folder is not None:
        function = _of_folder(upkeep)
    else:
        function = _of_call(upkeep)
    function.__name__ = function.__qualname__ = upkeep.name
    return app.task(name=upkeep.name, queue=upkeep.queue, retry=_RETRY)(function)


def _of_rows(upkeep: Upkeep, rows: OldRows, database: Callable[[], Database]) -> Callable[..., Any]:
    async def chunks(before: Any, deleted: int, count: int) -> AsyncIterator[list[int]]:
        """Deletes a chunk, and tells how many rows and chunks that makes with those of attempts before."""
        since: Any = None
        while True:
            async with database().async_writing() as connection:
                began = time.perf_counter()  # it holds, from now on, what others wait for
                chunk = await rows.delete(connection, before, since)
            held = time.perf_counter() - began
            if not chunk.deleted:
                return
            since = chunk.newest
            deleted, count = deleted + chunk.deleted, count + 1
            yield [deleted, count]
            # Half of the time is for others: on SQLite one transaction writes at a time, and those who wait
            # for it look only now and then whether it is over.
            await asyncio.sleep(min(held, _MOST_REST))

    async def clean(dry_run: bool = False, *, run: Run) -> Result:
        before = rows.before()
        async with database().async_reading() as connection:
            count = await connection.run_sync(rows.count, before)
            if dry_run:
                oldest = await connection.run_sync(rows.oldest)
                return {"dry_run": True, "would_delete": count, "oldest": oldest}
        start: list[int] = run.checkpoint() or [0, 0]
        done, total, complete = start, start[0] + count, True
        try:
            async for done in run.resume(chunks(before, *start), key=lambda told: told):
                # Others may have taken some, or a row may be new and old at once: never past the total.
                run.progress(done[0], max(total, done[0]), f"{done[0]:,} rows")
        except SoftTimeLimitExceeded:
            complete = False  # what is left is old tomorrow as well
        async with database().async_reading() as connection:
            oldest = await connection.run_sync(rows.oldest)
        return {"deleted": done[0], "chunks": done[1], "oldest_left": oldest, "complete": complete}

    return clean


def _of_folder(upkeep: Upkeep) -> Callable[..., Any]:
    async def clean(dry_run: bool = False, *, run: Run) -> Result:
        files = OldFiles(upkeep, dry_run)
        chunks, complete = 0, True
        try:
            more = True
            while more:
                more = await asyncio.to_thread(files.go_on)
                chunks += 1
                run.progress(files.deleted, None, f"{files.deleted:,} files")
        except SoftTimeLimitExceeded:
            complete = False
        if files.error is not None and not files.deleted:
            raise files.error
        if dry_run:
            return {"dry_run": True, "would_delete": files.deleted, "bytes": files.bytes}
        return {
            "deleted": files.deleted, "bytes": files.bytes, "failed": files.failed, "chunks": chunks,
            "oldest_left": files.oldest_left, "complete": complete,
        }  # fmt: skip

    return clean


def _of_call(upkeep: Upkeep) -> Callable[..., Any]:
    call = upkeep.call
    assert call is not None  # noqa: S101 - there is nothing else
    parameters = inspect.signature(call).parameters.values()
    hints = get_type_hints(call if inspect.isroutine(call) else getattr(call, "func", type(call).__call__))
    asked = {one.name for one in parameters if one.kind is not one.KEYWORD_ONLY and one.default is one.empty}
    plain = {one.name for one in parameters} & {"before", "dry_run"}
    for name in sorted(asked - plain):
        upkeep.refuse(f"call= takes {name!r}; it can be given before, dry_run, and resources by keyword")
    if "before" in plain and upkeep.older_than is None:
        upkeep.refuse("call= takes 'before', so say how old it must be: older_than=timedelta(days=30)")
    resources = [one for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in plain]

    async def clean(dry_run: bool = False, **given: Any) -> Result:
        if "dry_run" in plain:
            given["dry_run"] = dry_run
        elif dry_run:
            raise Discard(f"{upkeep.name} has no dry run: its function takes no dry_run")
        if "before" in plain:
            given["before"] = _before(upkeep)
        count = await called(call, **given)
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(
                f"the function of {upkeep.name} returned {count!r}; it returns how many it removed"
            )
        return {"dry_run": True, "would_delete": count} if dry_run else {"deleted": count}

    dry_run = inspect.Parameter("dry_run", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False)
    clean.__signature__ = inspect.Signature([dry_run, *resources])  # type: ignore[attr-defined]
    clean.__annotations__ = {"dry_run": bool, **{one.name: hints.get(one.name) for one in resources}}
    return clean


def _before(upkeep: Upkeep) -> datetime:
    return clock.now() - (upkeep.older_than or timedelta(0))
