"""Work in several steps, each a run of its own that is given what the one before returned."""

from __future__ import annotations

from typing import Any

from celery import chain

from errands import Run
from school.app import app


def send_steps(run: Run, names: tuple[str, ...], *args: Any) -> list[str]:
    """Send the tasks `names` as a chain, the first with `args`; returns the ids of their runs.

    The ids follow from `run`, so that a second delivery of it sends nothing twice.
    """
    ids = [run.child_id(name) for name in names]
    given = [args, *[() for _ in names[1:]]]
    steps = [app.tasks[name].s(*own) for name, own in zip(names, given, strict=True)]
    chain(*(step.set(task_id=each) for step, each in zip(steps, ids, strict=True))).apply_async()
    return ids
