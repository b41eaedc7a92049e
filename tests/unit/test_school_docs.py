"""The page on the school names what there is: tasks, queues, schedules, endpoints."""

from __future__ import annotations

import re
from pathlib import Path

from school.app import app
from school.web import api

PAGE = (Path(__file__).parents[2] / "docs" / "school.md").read_text("utf-8")


def table(head: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    lines = PAGE[PAGE.index(f"| {head} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_task_is_named_under_its_queue() -> None:
    told: dict[str, str] = {}
    queue = ""
    for first, tasks, _ in table("queue"):
        queue = first.partition(" ")[0] or queue
        told |= dict.fromkeys(re.findall(r"`(\w+)`", tasks), queue)
    # Not what examples of other pages share with all apps of this process.
    homes = ("school.", "errands.")
    ours = {
        name
        for name, task in app.tasks.items()
        if getattr(task, "function", None) is not None and task.function.__module__.startswith(homes)
    }
    upkeep = {name for name in ours if name.startswith("cleanup_")}
    assert set(told) == ours - upkeep
    assert {name: app.tasks[name].rules.queue for name in told} == told
    assert set(told.values()) == set(app.queue_names)


def test_each_schedule_has_its_time() -> None:
    crons = {"hourly": "0 * * * *"}
    told = {
        task.strip("`"): crons.get(time) or f"{int(time[3:])} {int(time[:2])} * * *"
        for time, task, _ in table("schedule (UTC)")
    }
    assert told == {name: schedule.rule.line for name, schedule in app.declared_schedules.items()}


def test_each_endpoint_of_the_school_is_there() -> None:
    """Those of Errands and of the kits have pages of their own."""
    text = re.sub(r"<\w+>", "<id>", PAGE)
    paths = [re.sub(r"{.*?}", "<id>", path) for path in api.openapi()["paths"]]
    own = {path for path in paths if not path.startswith(("/api/", "/metrics", "/healthz"))}
    own |= {path for path in paths if path.startswith(("/api/students", "/api/reports", "/api/send-"))}
    named = set(re.findall(r"`(?:(?:GET|POST|PUT|PATCH|DELETE) )?(/[^`\s{?]*)", text))
    assert own <= named
