"""What a call says to the script of its task's rule `unique`: see `lua/unique.lua` and `docs/unique.md`."""

from __future__ import annotations

from functools import cache
from typing import Any

from errands.broker.message import Payload
from errands.core import newest
from errands.core.errors import ConfigurationError, InvalidArguments, SecretError
from errands.core.events import Event, Kind
from errands.core.payloads import FIELD
from errands.core.states import FINAL
from errands.core.unique import DEBOUNCE, Unique
from errands.task import Task

# Of a row of the outbox: somebody has its id, and is to be told if another run stands for it.
HANDED_OUT = "handed out"
# What chains, groups, chords and callbacks are made of: their ids are known before they are sent, and others
# wait for just these.
_OF_CANVAS = ("group_id", "chord", "chain", "link", "link_error", "reply_to", "parent_id")


def rule_of(task: Any, options: dict[str, Any]) -> Unique | None:
    """The rule that a call of `task` with these options is under; None where it is under none.

    Raises:
        ConfigurationError: the option `unique` is something else than False.
    """
    rule = task.rules.unique if isinstance(task, Task) else None
    given = options.get("unique")
    if given not in (None, False, HANDED_OUT):
        raise ConfigurationError(
            f"{getattr(task, 'name', task)}: unique={given!r}: a call can say unique=False, to be no "
            "duplicate; the rule itself belongs to the task"
        )
    if rule is None or given is False or any(options.get(name) for name in _OF_CANVAS):
        return None
    return rule


def wait_of(rule: Unique | None) -> float | None:
    """Seconds from a call to its start, where the rule puts it off."""
    return None if rule is None else rule.wait


def claim_of(
    rule: Unique, task: Task[..., Any], payload: Payload, event: Event, *, handed_out: bool = False,
    on: str | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """The claim of a call, as the script reads it; None where its arguments do not fit: its worker tells.

    Args:
        rule, task: what is called, and the rule that the call is under.
        payload: its arguments.
        event: the "queued" event that is to be written.
        handed_out: somebody has the run's id already: if another run stands for it, it is told to have ended.
        on: instead of what the rule says of a second request: see `lua/unique.lua`.
    """
    args, kwargs = payload.args, payload.kwargs
    if not payload.checked and FIELD not in kwargs:
        try:
            args, kwargs = task.arguments.prepare(args, kwargs, task.app.keyring)
        except (InvalidArguments, SecretError):
            return None
    claim = {
        **_fixed(rule),
        "key": rule.key(task.name, task.arguments.compared(args, kwargs)),
        "on": on or rule.on_conflict,
    }
    if on is not None:
        return claim
    if rule.replaces:
        claim["new"] = newest.tell(event, args, kwargs, task.app.signer)
    if rule.on_conflict == DEBOUNCE:
        wait = rule.wait if event.eta is None else event.eta - event.at
        claim["wait"] = int(1000 * max(wait or 0, 0))
    if handed_out:
        end = Event(
            kind=Kind.DISCARDED, run_id=event.run_id, at=event.at, task=event.task, queue=event.queue,
            owner=event.owner, args=list(args), kwargs=dict(kwargs),
        )  # fmt: skip
        claim |= {"told": end.to_json().decode(), "keep": task.app.settings.result_expires}
    return claim


@cache
def _fixed(rule: Unique) -> dict[str, Any]:
    """What all claims of a rule have in common."""
    states = {state.value: 1 for state in rule.states}
    fixed: dict[str, Any] = {"states": states, "lasts": " ".join(sorted(rule.states & FINAL))}
    if rule.within is not None:
        fixed["within"] = max(1, int(1000 * rule.within))
    if rule.most is not None:
        fixed["most"] = int(1000 * rule.most)
    return fixed
