"""The arguments that a later request gave a waiting run: how they are told, and how its worker takes them.

They lie in the live state of the run, since the message that waits cannot be changed. Where messages are
signed, they are signed as well; and they must be of the same work as the message, so that none of another run
can be put in their place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from errands.core.errors import UntrustedMessage
from errands.core.events import Event, Kind
from errands.core.signing import MARKS, Signer

_KIND, _ENCODING = "application/json", "utf-8"
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def tell(event: Event, args: Sequence[Any], kwargs: Mapping[str, Any], signer: Signer | None) -> str:
    """The facts of the event that gives a run the arguments of the request `event`, as the script needs them:
    JSON without its braces, its kind and its run."""
    message = None
    if signer is not None:
        headers = {"task": event.task}
        message = {MARKS: signer.marks(headers, _body(args, kwargs), _KIND, _ENCODING)}
    told = Event(
        kind=Kind.REPLACED, run_id="", at=event.at, task=event.task, args=list(args), kwargs=dict(kwargs),
        message=message,
    )  # fmt: skip
    return told.to_json().decode().removeprefix('{"kind":"replaced","run_id":"",').removesuffix("}")


def read(told: str, task: str, signer: Signer | None) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that such an event gives.

    Args:
        told: the event, as the live state has it.
        task: the task's name, as the message has it.
        signer: where only signed messages are trusted.

    Raises:
        UntrustedMessage: it is not signed by us.
    """
    event = Event.from_json(told)
    args, kwargs = event.args or [], event.kwargs or {}
    if signer is not None:
        headers = {"task": event.task, **(event.message or {})}
        if event.task != task or signer.check(headers, _body(args, kwargs), _KIND, _ENCODING) is None:
            raise UntrustedMessage("the arguments of a later request for it are not signed")
    return args, kwargs


def _body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    return _encode([list(args), dict(kwargs)]).encode()
