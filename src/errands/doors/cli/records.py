"""The commands on dead letters and what is kept of people. They act as an admin: who has the settings is."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from errands.core.errors import ErrandsError
from errands.doors.cli.admin import ReasonOption, errands_app, me, told
from errands.doors.cli.commands import AppOption

TaskOption = Annotated[str | None, typer.Option(help="Only those of this task.")]
QueueOption = Annotated[str | None, typer.Option(help="Only those of this queue.")]
TextOption = Annotated[str | None, typer.Option("--text", help="Only those whose reason holds this text.")]
SinceOption = Annotated[datetime | None, typer.Option(help="Only those that came since then (local time).")]
UntilOption = Annotated[datetime | None, typer.Option(help="Only those that came before then (local time).")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only count.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def show(
    app: AppOption = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    task: TaskOption = None,
    queue: QueueOption = None,
    text: TextOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, messages included.")] = False,
) -> None:
    """List dead letters, the newest first."""
    from errands.ops.views import Ops

    found = told(
        lambda: Ops(errands_app(app)).dead_letters(me(), limit, _match(task, queue, text, since, until))
    )
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for letter in found:
        again = " (sent again)" if letter["replayed_at"] else ""
        typer.echo(f"{letter['id']}  {letter['at']}  {letter['task'] or '-'}  {letter['reason']}{again}")


def replay(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Dead letters; without any, all that match.")
    ] = None,
    app: AppOption = "",
    task: TaskOption = None,
    queue: QueueOption = None,
    text: TextOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    trust: Annotated[bool, typer.Option("--trust", help="Also what is not signed by us.")] = False,
    dry_run: DryRunOption = False,
    reason: ReasonOption = None,
) -> None:
    """Send the runs of dead letters again; exit status 1 if one could not be."""
    from errands.ops.dead_letters import DeadLetters

    letters, refused = DeadLetters(errands_app(app)), []
    if ids:
        for letter_id in ids:
            try:
                letters.replay(me(), letter_id, reason=reason, trust=trust)
            except ErrandsError as exc:
                refused.append({"id": letter_id, "why": str(exc)})
        done = len(ids) - len(refused)
    else:
        match, done, after = _match(task, queue, text, since, until), 0, None
        while True:
            step = partial(letters.replay_all, me(), match, reason=reason, trust=trust, dry_run=dry_run)
            answer = told(partial(step, after=after))
            if dry_run:
                typer.echo(f"{answer['matched']} dead letters match.")
                return
            done += answer["replayed"]
            refused += answer["refused"]
            after = answer["after"]
            if after is None:
                break
    typer.echo(f"{done} sent again.")
    for each in refused:
        typer.echo(f"{each['id']}: {each['why']}", err=True)
    if refused:
        raise typer.Exit(1)


def delete(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Dead letters; without any, all that match.")
    ] = None,
    app: AppOption = "",
    task: TaskOption = None,
    queue: QueueOption = None,
    text: TextOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
) -> None:
    """Throw dead letters away."""
    from errands.ops.dead_letters import DeadLetters

    letters, match = DeadLetters(errands_app(app)), _match(task, queue, text, since, until)
    if ids:
        for letter_id in ids:
            told(partial(letters.delete, me(), letter_id, reason=reason))
        typer.echo(f"{len(ids)} thrown away.")
        return
    matched = told(lambda: letters.delete_all(me(), match, dry_run=True))["matched"]
    typer.echo(f"{matched} dead letters match.")
    if dry_run or not matched:
        return
    if not yes:
        typer.confirm("Throw them away?", abort=True)
    done, after = 0, None
    while True:
        answer = told(partial(letters.delete_all, me(), match, reason=reason, after=after))
        done, after = done + answer["deleted"], answer["after"]
        if after is None:
            break
    typer.echo(f"{done} thrown away.")


def erase(
    person: Annotated[str, typer.Argument(help="The person's id, as runs have it.")],
    app: AppOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
) -> None:
    """Clear the content of all runs that belong to a person or are about them."""
    from errands.ops.erase import Erasing

    erasing = Erasing(errands_app(app))
    found = told(lambda: erasing.erase_person(me(), person, dry_run=True))
    typer.echo(f"{found['runs']} runs, {found['unsent']} that were not sent yet.")
    if dry_run:
        return
    if not yes:
        typer.confirm(f"Erase {person}? This cannot be undone.", abort=True)
    answer = told(lambda: erasing.erase_person(me(), person, reason=reason))
    typer.echo(
        f"Erased: {answer['runs']} runs, {answer['revoked']} of which waited and were revoked, "
        f"{answer['dead_letters']} dead letters."
    )


def _match(
    task: str | None, queue: str | None, text: str | None, since: datetime | None, until: datetime | None
) -> Any:
    from errands.store.letters import LetterFilter

    return LetterFilter(
        task=task, queue=queue, reason=text, since=since.astimezone() if since else None,
        until=until.astimezone() if until else None,
    )  # fmt: skip
