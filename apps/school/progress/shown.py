"""What a progress page shows of a run: its task, state, progress and note, and a link to a file it has made.

Nothing else: neither arguments nor the rest of the result, since whoever has the link sees the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from errands.core.states import State
from school.app import app

Run = dict[str, Any]
"""A run as `GET /api/tasks/<id>` tells it."""

_WORDS = {
    State.SCHEDULED: "Waits until it is due",
    State.QUEUED: "Waits for its turn",
    State.RUNNING: "At work",
    State.RETRYING: "Goes on in a moment",
    State.SUCCEEDED: "Done",
    State.FAILED: "It did not work",
    State.DISCARDED: "It did not work",
    State.REVOKED: "It was called off",
    State.EXPIRED: "It waited too long",
}
_DOWNLOADS = {
    "url": "Download the result",
    "link": "Download the result",
    "refused_link": "Download the rows that were refused",
}


def followers(run: Run) -> list[str]:
    """The runs that a run has started as a chain; its result are their ids."""
    result = run["result"]
    if run["state"] != State.SUCCEEDED or not isinstance(result, list):
        return []
    return result if all(isinstance(each, str) for each in result) else []


def shown(run: Run, steps: Sequence[Run] = ()) -> dict[str, Any]:
    """What the page shows, as JSON.

    Args:
        run: the run.
        steps: its followers, in order, as far as they have been sent.

    Returns:
        title; state and what it is in words; ready: whether nothing more will change; percentage, or None
        where nobody knows; note; download: {url, words} or None; steps: title, state and words of each.
    """
    last, of = (steps[-1] if steps else run), followers(run)
    state = State(last["state"])
    ready = state.final and (len(steps) == len(of) or state is not State.SUCCEEDED)
    if state is State.SUCCEEDED and not ready:
        state = State.RUNNING  # the next step follows
    told = last["progress"] or {}
    done = sum(step["state"] == State.SUCCEEDED for step in steps)
    percentage = 100 * done // len(of) if of else told.get("percentage")
    return {
        "title": title_of(run["task"]),
        "state": state.value,
        "words": _WORDS[state],
        "ready": ready,
        "percentage": 100 if state is State.SUCCEEDED else percentage,
        "note": str(told.get("note") or ""),
        "download": _download(last["result"]) if ready else None,
        "steps": [
            {"title": title_of(each["task"]), "state": each["state"], "words": _WORDS[State(each["state"])]}
            for each in steps
        ],
    }


def title_of(task: str | None) -> str:
    """The name of a task as a heading: "process_large_file" is "Process large file"."""
    return (task or "task").rpartition(".")[2].replace("_", " ").capitalize()


def _download(result: Any) -> dict[str, str] | None:
    """The first link of ours in a result."""
    ours = f"{app.settings.public_url.rstrip('/')}/"
    for name, words in _DOWNLOADS.items():
        url = result.get(name) if isinstance(result, dict) else None
        if isinstance(url, str) and url.startswith(ours):
            return {"url": url, "words": words}
    return None
