"""Whose turn it is: the tenant of a run, read off its arguments, and the lane that its message waits in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from errands.core.errors import ConfigurationError
from errands.core.paths import dead_end

_LONGEST = 64  # characters of a tenant that are kept as they are


def check_fair_by(
    task: str, path: str, parameters: Collection[str], secrets: Collection[str] = (),
    hints: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Refuse a `fair_by` that names no argument, or a secret one.

    Args:
        task: its name.
        path: an argument, or what is inside of one: "order.school_id".
        parameters: of the task's function, by name.
        secrets: those of them that are secret.
        hints: their type hints, by name.

    Raises:
        ConfigurationError: it names the task and the rule.
    """
    names = path.split(".") if isinstance(path, str) else []
    if not names or not all(names):
        raise ConfigurationError(
            f"task {task!r}: fair_by={path!r}: name an argument, as in fair_by='school_id' or "
            "fair_by='order.school_id'"
        )
    if names[0] not in parameters:
        raise ConfigurationError(
            f"task {task!r}: fair_by={path!r} names no argument of the task; it has "
            f"{', '.join(parameters) or 'none'}"
        )
    if names[0] in secrets:
        raise ConfigurationError(
            f"task {task!r}: fair_by={path!r} is a secret, and a tenant is written down in the open: name "
            "another argument"
        )
    if why := dead_end(path, hints or {}):
        raise ConfigurationError(f"task {task!r}: fair_by={path!r} leads nowhere: {why}")


def tenant_of(value: Any) -> str:
    """The tenant that an argument's value names; "" where it names none (None, an empty text).

    A text and a number stand for themselves, anything else by its JSON; what is long is known by a digest.
    """
    if value is None:
        return ""
    text = str(value) if isinstance(value, str | int) else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= _LONGEST and text.isprintable():
        return text
    return "#" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def lane(level: str, tenant: Any) -> str:
    """Where a message waits in its queue, as `lua/put.lua` reads it: its level, and its tenant if it has one.

    Args:
        level: "high", "normal" or "low".
        tenant: as `tenant_of` made it; what is no text (anybody may write a message's header) is none.
    """
    return f"{level}\x01{tenant_of(tenant)}" if isinstance(tenant, str) and tenant else level
