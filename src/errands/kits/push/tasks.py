"""The kit's tasks: to one user, to many, to all; to devices, or into boxes alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from errands import Retry, Run, Subject
from errands.kits.push.audience import Audience, UserId
from errands.kits.push.notice import KIND, MESSAGE_MAX, TITLE_MAX, Notice
from errands.kits.push.notifier import Notifier

if TYPE_CHECKING:
    from errands import Errands

# Users in one run of a broadcast.
CHUNK = 500


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a title is one line of printable characters")
    return text


def _fits(data: dict[str, Any] | None) -> dict[str, Any] | None:
    Notice("-", "-", data or {})
    return data


Title = Annotated[str, Field(min_length=1, max_length=TITLE_MAX), AfterValidator(_is_printable)]
Message = Annotated[str, Field(min_length=1, max_length=MESSAGE_MAX)]
Data = Annotated[dict[str, Any] | None, AfterValidator(_fits)]
Kind = Annotated[str, Field(pattern=KIND)]


def register(app: Errands, queue: str, retry: Retry, *, broadcast: bool) -> None:
    """Declare the tasks on `app`.

    Args:
        queue: where their messages wait.
        retry: when those whom a service did not take are tried again.
        broadcast: declare the one that needs an `Audience` as well.
    """

    @app.task(name="send_push_notification", queue=queue, retry=retry)
    async def send_push_notification(
        user_id: Subject[UserId],
        title: Title,
        message: Message,
        data: Data = None,
        kind: Kind = "general",
        urgent: bool = False,
        *,
        run: Run,
        notifier: Notifier,
    ) -> dict[str, int]:
        notice = Notice(title, message, data or {}, kind, urgent)
        return await notifier.send(run, [user_id], notice, last=run.attempt > retry.times)

    @app.task(name="send_push_notifications", queue=queue, retry=retry, offload=True)
    async def send_push_notifications(
        user_ids: list[UserId],
        title: Title,
        message: Message,
        data: Data = None,
        kind: Kind = "general",
        urgent: bool = False,
        source: str | None = None,
        *,
        run: Run,
        notifier: Notifier,
    ) -> dict[str, int]:
        notice = Notice(title, message, data or {}, kind, urgent)
        return await notifier.send(run, user_ids, notice, source=source, last=run.attempt > retry.times)

    @app.task(name="send_bulk_notifications", queue=queue, retry=retry, offload=True)
    async def send_bulk_notifications(
        user_ids: list[UserId],
        title: Title,
        message: Message,
        data: Data = None,
        kind: Kind = "general",
        *,
        run: Run,
        notifier: Notifier,
    ) -> dict[str, int]:
        notice = Notice(title, message, data or {}, kind)
        counts = await notifier.send(run, user_ids, notice, push=False)
        return {"total": len(user_ids), "notified": counts["notified"], "skipped": counts["skipped"]}

    if not broadcast:
        return

    @app.task(name="send_broadcast_push_notification", queue=queue, retry=retry)
    async def send_broadcast_push_notification(
        title: Title,
        message: Message,
        role: str | None = None,
        data: Data = None,
        kind: Kind = "general",
        urgent: bool = False,
        *,
        run: Run,
        audience: Audience,
    ) -> dict[str, int]:
        # The checkpoint is the last user who was handed on, and how many that makes.
        after, before = run.checkpoint() or (None, 0)
        total, runs = before, 0
        rows = _counted(audience, role, after, before)
        async for users, total in run.resume(rows, key=lambda row: [row[0][-1], row[1]]):
            # The same source for all: where a broadcast that was cut off hands somebody on twice, in runs
            # that overlap, the user is told once.
            await send_push_notifications.aapply_async(
                (users, title, message, data, kind, urgent, run.id),
                task_id=run.child_id(f"{users[0]} to {users[-1]}"),
            )
            runs += 1
            run.progress(total)
        return {"users": total, "runs": runs}


async def _counted(
    audience: Audience, role: str | None, after: UserId | None, total: int
) -> AsyncIterator[tuple[Sequence[UserId], int]]:
    """The audience in chunks that fit into one run, each with how many users there were up to its end."""
    async for users in audience.users(role, after):
        for start in range(0, len(users), CHUNK):
            chunk = list(users[start : start + CHUNK])
            total += len(chunk)
            yield chunk, total
