"""Arguments that are too large for a message: which of them leave it, and how they come back.

The message keeps a reference, under a name that no parameter can have, and in place of each argument that
left a note of its size. The note holds the value's SHA-256, so what is equal still looks equal to rules that
compare arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from errands.core.errors import PayloadLost

FIELD = "errands.payload"


class PayloadStore(Protocol):
    """Keeps the content of payloads, for all processes of the app: see `Errands.offload_to`."""

    async def put(self, key: str, content: bytes) -> None:
        """Keep `content`; when this returns, a crash does not lose it."""
        ...

    async def get(self, key: str) -> bytes | None:
        """What is kept under `key`; None where there is nothing. Any error means: not now."""
        ...

    async def delete(self, key: str) -> None:
        """Remove it. What is not there is no error."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the arguments are that left a message.

    Args:
        key: in the store.
        sha256: of the content, in hex.
        bytes: its size.
        args: the positions that left.
        kwargs: the names that left.
    """

    key: str
    sha256: str
    bytes: int
    args: tuple[int, ...]
    kwargs: tuple[str, ...]

    @classmethod
    def found_in(cls, kwargs: Mapping[str, Any]) -> Reference | None:
        """The reference that a message's `kwargs` hold; None where they hold none."""
        told = kwargs.get(FIELD)
        if not isinstance(told, Mapping) or told.keys() != _FIELDS:
            return None
        kinds = isinstance(told["args"], list | tuple) and isinstance(told["kwargs"], list | tuple)
        if not kinds or not all(isinstance(told[name], str) for name in ("key", "sha256")):
            return None
        return cls(told["key"], told["sha256"], told["bytes"], tuple(told["args"]), tuple(told["kwargs"]))

    def as_json(self) -> dict[str, Any]:
        """As the message carries it."""
        return {**asdict(self), "args": list(self.args), "kwargs": list(self.kwargs)}


_FIELDS = frozenset({"key", "sha256", "bytes", "args", "kwargs"})
Encode = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Split:
    """A call of which some arguments left: `args` and `kwargs` are what the message carries."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    content: bytes


def split(
    task: str, key: str, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int, encode: Encode,
    stay: Collection[int | str] = (),
) -> Split:  # fmt: skip
    """Take arguments out of a call, the largest first, until the rest weighs at most `limit` bytes of JSON.

    Args:
        task: its name; the content says whose it is.
        key: of the content.
        args, kwargs: JSON-ready.
        limit: in bytes.
        encode: writes a value as JSON.
        stay: positions and names that stay, whatever they weigh.
    """
    values: dict[int | str, Any] = dict(enumerate(args)) | dict(kwargs)
    written = {place: encode(value) for place, value in values.items()}
    left = sum(len(text) for text in written.values())
    leaving: list[int | str] = []
    for place in sorted(written.keys() - set(stay), key=lambda place: -len(written[place])):
        # The reference and the notes weigh something, too.
        if left + 200 * (len(leaving) + 2) <= limit:
            break
        leaving.append(place)
        left -= len(written[place])
    positions = sorted(place for place in leaving if isinstance(place, int))
    names = sorted(place for place in leaving if isinstance(place, str))
    content = encode(
        {
            "task": task,
            "args": [args[position] for position in positions],
            "kwargs": {name: kwargs[name] for name in names},
        }
    )
    reference = Reference(key, _digest(content), len(content), tuple(positions), tuple(names))
    small = tuple(_note(written[n]) if n in leaving else value for n, value in enumerate(args))
    named = {name: _note(written[name]) if name in leaving else value for name, value in kwargs.items()}
    return Split(small, {**named, FIELD: reference.as_json()}, content)


def join(
    task: str, aliases: Collection[str], args: Sequence[Any], kwargs: Mapping[str, Any],
    reference: Reference, content: bytes | None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """The whole call again.

    Args:
        task, aliases: the names under which the content may have been kept.
        args, kwargs: as the message carries them.
        reference: what they hold.
        content: what was found under its key.

    Raises:
        PayloadLost: there is none, it was changed, or it is another task's.
    """
    what = f"its arguments were kept apart from the message ({reference.bytes:,} bytes, {reference.key})"
    if content is None:
        raise PayloadLost(task, [f"{what} and are gone: send it again with its arguments"])
    if _digest(content) != reference.sha256:
        raise PayloadLost(task, [f"{what} and are not what was kept: send it again with its arguments"])
    kept = json.loads(content)
    if kept["task"] not in (task, *aliases):
        raise PayloadLost(task, [f"{what} and are those of another task"])
    whole = list(args)
    for position, value in zip(reference.args, kept["args"], strict=True):
        whole[position] = value
    rest = {name: value for name, value in kwargs.items() if name != FIELD}
    return tuple(whole), {**rest, **kept["kwargs"]}


def payload_bytes(kwargs: Mapping[str, Any] | None) -> int | None:
    """How much was kept apart of a call with these `kwargs`; None where nothing was."""
    reference = Reference.found_in(kwargs or {})
    return None if reference is None else reference.bytes


def without_reference(kwargs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`kwargs` as people may see them: with the notes of what was kept apart, and without the key to it."""
    if not kwargs or FIELD not in kwargs:
        return kwargs
    return {name: value for name, value in kwargs.items() if name != FIELD}


def _note(written: bytes) -> str:
    return f"offloaded: {len(written):,} bytes, sha256 {_digest(written)}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
