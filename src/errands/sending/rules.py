"""What the rules of a task ask of the acceptance of one call: read by `lua/commit.lua`, as JSON.

A mapping with a part for each rule that has a say: `unique`, `fair`, `batch`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from errands.broker.message import Payload
from errands.sending.terms import Terms

_encode = msgspec.json.Encoder().encode


def of_call(terms: Terms, payload: Payload) -> str:
    """The rules of one call as JSON; "" where there are none.

    Args:
        terms: what is called, and with which options; anything but a task of ours has no rules.
        payload: its checked arguments.
    """
    if not terms.has_rules:
        return ""
    asked: dict[str, Any] = {}
    return _encode(asked).decode() if asked else ""
