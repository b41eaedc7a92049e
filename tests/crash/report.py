"""The table, and the JSON that is kept of it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tests.crash.faults import FAULTS
from tests.crash.scenario import Row

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("celery", "kombu", "redis")


def together(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of the same fault and system, for faults that were played more than once."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.fault, row.system), []).append(row)
    return found


def table(rows: Sequence[Row]) -> Table:
    """fault | system | runs | lost | stuck | doubled | seconds to recover, and what was promised."""
    made = Table(title="Faults on real processes and servers")
    for name in ("fault", "system"):
        made.add_column(name, no_wrap=True)
    for name in ("runs", "lost", "stuck", "doubled", "back after, s", "promised, s"):
        made.add_column(name, justify="right")
    told = ""
    for (fault, system), found in sorted_by_fault(rows):
        if told and fault != told:
            made.add_section()
        made.add_row("" if fault == told else fault, system, *_cells(found), f"{found[0].bound:g}")
        told = fault
    return made


def sorted_by_fault(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    """`together`, in the order of the faults."""
    order = list(dict.fromkeys(row.fault for row in rows))
    return sorted(together(rows).items(), key=lambda item: order.index(item[0][0]))


def _cells(rows: Sequence[Row]) -> list[str | Text]:
    lost = sum(len(row.report.lost) for row in rows)
    stuck = sum(len(row.report.stuck) for row in rows)
    doubled = sum(len(row.report.doubled) for row in rows)
    again = sum(len(row.report.repeated) for row in rows)
    slowest = max((row.report.recovery or 0.0 for row in rows), default=0.0)
    return [
        str(sum(row.report.runs for row in rows)),
        _count(lost),
        _count(stuck),
        _count(doubled) + (Text(f" +{again}", style="yellow") if again else Text("")),
        Text(f"{slowest:.1f}", style="red" if slowest > rows[0].bound else ""),
    ]


def _count(number: int) -> Text:
    return Text(str(number), style="bold red" if number else "")


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and below it each broken promise."""
    console.print(table(rows))
    console.print("stuck: not done when the patience ended, but still in the server.", style="dim")
    console.print("+n: done again, because what had done it was killed before it could say so.", style="dim")
    for row in rows:
        for line in row.violations:
            console.print(f"[red]{row.system}[/], {row.fault}: {line}", highlight=False)
        if row.slowest_refusal is not None:
            console.print(
                f"{row.system}, {row.fault}: the slowest refusal took {row.slowest_refusal:.2f} s",
                style="dim",
                highlight=False,
            )
        for note in row.notes:
            console.print(f"{row.system}, {row.fault}: {note}", style="dim", highlight=False)


def keep(rows: Sequence[Row], soak: Mapping[str, Any] | None = None, folder: Path = RESULTS) -> Path:
    """Write `latest.json`: counts, and a line for each broken promise.

    Rows of faults and systems that were not played this time stay as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "latest.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": []}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = [_row(row) | {"at": now} for row in rows]
    played = {(row["fault"], row["system"]) for row in new}
    old = [row for row in kept["rows"] if (row["fault"], row["system"]) not in played]
    kept["rows"] = sorted([*old, *new], key=lambda row: (row["fault"], row["system"]))
    kept["machine"] = {
        "cpus": os.cpu_count(), "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), **{name: version(name) for name in _PACKAGES},
    }  # fmt: skip
    if soak:
        kept["soak"] = dict(soak)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    (folder / "latest.md").write_text(markdown(kept))
    return path


def markdown(kept: Mapping[str, Any]) -> str:
    """What `latest.json` holds, as a page."""
    machine = kept["machine"]
    lines = [
        "# Faults on real processes and servers", "",
        f"Written by `make crash ARGS=--keep`. {machine['cpus']} CPUs, {machine['system']}, Python "
        f"{machine['python']}, Celery {machine['celery']}, kombu {machine['kombu']}. How to read it: "
        "[reliability](../../../docs/reliability.md#what-the-columns-say).", "",
        "| fault | system | runs | lost | stuck | doubled | back after, s | broken promises |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]  # fmt: skip
    order = {fault.name: number for number, fault in enumerate(FAULTS)}
    for row in sorted(kept["rows"], key=lambda row: (order.get(row["fault"], 99), row["system"])):
        again = f" +{row['repeated']}" if row["repeated"] else ""
        back = "" if row["recovery_s"] is None else row["recovery_s"]
        lines.append(
            f"| {row['fault']} | {row['system']} | {row['runs']} | {row['lost']} | {row['stuck']} "
            f"| {row['doubled']}{again} | {back} | {'; '.join(row['violations'])} |"
        )
    return "\n".join(lines) + "\n"


def _row(row: Row) -> dict[str, Any]:
    report = row.report
    return {
        "fault": row.fault, "system": row.system, "promised_s": row.bound, "runs": report.runs,
        "lost": len(report.lost), "stuck": len(report.stuck),
        "doubled": len(report.doubled), "repeated": len(report.repeated),
        "recovery_s": None if report.recovery is None else round(report.recovery, 1), "took_s": row.seconds,
        "slowest_refusal_s": row.slowest_refusal, "notes": list(row.notes),
        "violations": [_short(line) for line in row.violations],
    }  # fmt: skip


def _short(violation: str) -> str:
    """Without ids and folders, which tell nobody anything once the history is gone."""
    return violation.partition(" (")[0].partition("; logs are in")[0]
