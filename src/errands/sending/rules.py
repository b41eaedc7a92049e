"""What the rules of a task ask of the acceptance of one call: read by `lua/commit.lua`, as JSON.

A mapping with a part for each rule that has a say: `unique`, `batch`. Whose turn it is, the message says.
"""

from __future__ import annotations

from typing import Any

import msgspec

from errands.broker.message import Payload
from errands.core import clock
from errands.core.batches import Membership
from errands.core.events import Event, Kind
from errands.core.fairness import tenant_of
from errands.sending import unique
from errands.sending.terms import Terms
from errands.task import Task

_encode = msgspec.json.Encoder().encode


def of_call(terms: Terms, payload: Payload, event: Event, batch: Membership | None = None) -> str:
    """The rules of one call as JSON; "" where there are none.

    Args:
        terms: what is called, and with which options; anything but a task of ours has no rules.
        payload: its arguments.
        event: the "queued" event that is to be written.
        batch: which it joins.
    """
    if terms.unique is None and batch is None:
        return ""
    asked: dict[str, Any] = {}
    if terms.unique is not None and batch is None:  # what a batch waits for is no duplicate
        claim = unique.claim_of(terms.unique, terms.task, payload, event, handed_out=terms.handed_out)
        if claim is not None:
            asked["unique"] = claim
    if batch is not None:
        asked["batch"] = batch.id
    return _encode(asked).decode() if asked else ""


def of_reopening(task: Any, payload: Payload) -> str:
    """The rules of a run that is sent again after its end: another may do its work by now."""
    rule = unique.rule_of(task, {})
    if rule is None:
        return ""
    event = Event(kind=Kind.REOPENED, run_id="", at=clock.timestamp())
    claim = unique.claim_of(rule, task, payload, event, on="reopen")
    return "" if claim is None else _encode({"unique": claim}).decode()


def tenant(task: Any, args: Any, kwargs: Any) -> str:
    """Whose run a call of `task` is, by its `fair_by`; "" where that rule or the call names nobody."""
    fair_by = task.rules.fair_by if isinstance(task, Task) else None
    return "" if fair_by is None else tenant_of(task.arguments.value(fair_by, args, kwargs))
