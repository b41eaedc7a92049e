"""The one screen at the end of the start: addresses, sign-in, what to try."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def ready_screen(access: dict[str, Any], home: Path, seconds: float, hints: Sequence[str]) -> RenderableType:
    """What a newcomer needs to know. `access` is what access.json holds, `seconds` the time it all took."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, key in (
        ("Application", "url"),
        ("Try its endpoints", "dashboard_url"),
        ("Caught mails", "mail_url"),
        ("Messages to phones", "messages_url"),
        ("Webhooks arrived", "webhooks_url"),
    ):
        table.add_row(label, Text(str(access[key])))
    if access.get("admin_email"):
        table.add_row("Sign in as", Text(f"{access['admin_email']}  password  {access['admin_password']}"))
    if access.get("admin_token"):
        table.add_row("Admin token", Text(f"{access['admin_token']}  (Authorization: Bearer …)"))
    table.add_row("Data and logs", Text(f"{home}  (addresses and sign-in: access.json)"))
    parts: list[RenderableType] = [table]
    if hints:
        parts += [Text(), Text("What to try", style="bold")]
        parts += [Text(f"  {number}. {hint}") for number, hint in enumerate(hints, start=1)]
    parts += [Text(), Text("Ctrl-C stops everything; the next start goes on with the same data.")]
    return Panel(Group(*parts), title=f"Ready after {seconds:.1f} s", title_align="left", expand=False)


def default_hints(access: dict[str, Any]) -> list[str]:
    """What can be tried with any application."""
    return [
        f"Open {access['dashboard_url']}, sign in and call an endpoint that starts a task.",
        f"Watch its mail come in at {access['mail_url']}.",
        f"Send webhooks to {access['webhooks_url']}/hook/any-name and see whether their signatures hold.",
        "Kill any of the processes: it comes back, and a line says so.",
    ]
