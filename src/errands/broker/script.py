"""The script that commits operations, in three sizes: a call has the smallest one that does what it asks.

Nearly all calls send new runs without rules (`lua/send.lua`), or tell of starts and successes
(`lua/lives.lua`). `lua/commit.lua` does everything. A single new run needs none (`transaction.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from hiredis import pack_command

from errands.broker import leases, transaction
from errands.broker.errors import NotHeard
from errands.broker.keys import Keys
from errands.broker.operations import (
    OF_SENDING,
    Operation,
    Reply,
    is_ordinary,
    of_life,
    replies,
    sends_new,
    sends_plainly,
)
from errands.core import clock
from errands.core.events import Kind
from errands.core.states import FINAL, MOVES

# On a server that is full, workers go on: what they finish makes room. Before Redis 7 no script can say so.
_OF_WORKERS = "#!lua flags=allow-oom\n"


class _Variant(NamedTuple):
    text: str
    digest: str


class Script:
    """The script, and how it is called.

    Args:
        keys: key names.
        events_max: entries that the stream of events may hold, but for those of one call.
        max_deliveries: workers that one message may take down.
    """

    def __init__(self, keys: Keys, *, events_max: int, max_deliveries: int) -> None:
        self._settings = keys.prefix, events_max, max_deliveries
        self._transactions = True
        texts = _whole(), _lua("send"), _joined("attempt", "write_event", "keep", "ordinary", "lives")
        self._of_producers = [_variant(text) for text in texts]
        self._of_workers = [_variant(_OF_WORKERS + text) for text in texts]

    def command(self, operations: Sequence[Operation], *, whole: bool = False) -> list[Any]:
        """The command that commits `operations`; `whole` for a server that does not know the script yet."""
        holder = leases.holder()
        everything, send, lives = self._of_workers if holder else self._of_producers
        prefix, events_max, max_deliveries = self._settings
        if holder and all(map(is_ordinary, operations)):
            arguments = _called(lives, whole)
            arguments += prefix, events_max, holder
            for operation in operations:
                arguments += of_life(operation)
        elif all(map(sends_plainly, operations)):
            arguments = _called(send, whole)
            arguments += prefix, events_max
            for operation in operations:
                arguments += OF_SENDING(operation)
        else:
            arguments = _called(everything, whole)
            arguments += prefix, events_max, max_deliveries, holder
            for operation in operations:
                arguments += operation
        return arguments

    def transaction(self, operations: Sequence[Operation]) -> bytes | None:
        """The commands that do without a script what `operations` ask of the server; None where none can.

        On a server that is full no transaction goes through, and workers must go on.
        """
        if len(operations) != 1 or leases.holder() or not self._transactions or not sends_new(operations[0]):
            return None
        prefix, events_max, _ = self._settings
        return transaction.packed(operations[0], prefix, events_max, clock.timestamp())

    def packed(self, operations: Sequence[Operation]) -> tuple[bytes, int]:
        """The least that does `operations`, as it goes over the wire, and how many commands it is."""
        at_once = self.transaction(operations)
        if at_once is not None:
            return at_once, transaction.REPLIES
        return pack_command(tuple(self.command(operations))), 1

    def outcome(self, answers: list[Any], operations: Sequence[Operation]) -> list[Reply]:
        """What the server's answers to `packed` say, a reply for each operation.

        Raises:
            redis.RedisError: it refused; `NotHeard`: nobody knows what it did.
        """
        if len(answers) == 1:
            if isinstance(answers[0], Exception):
                raise answers[0]
            return replies(answers[0], operations, again=False)
        try:
            return transaction.outcome(answers)
        except NotHeard as exc:
            if isinstance(exc.__cause__, redis.exceptions.NoPermissionError):
                self._transactions = False  # this user may begin none
            raise

    def refused(self, error: redis.ResponseError) -> bool:
        """Whether the server is too old for the flags of the workers' script; then it goes without them."""
        too_old = self._of_workers is not self._of_producers and "compiling script" in str(error)
        if too_old:
            self._of_workers = self._of_producers
        return too_old


def _called(variant: _Variant, whole: bool) -> list[Any]:
    return ["EVAL", variant.text, 0] if whole else ["EVALSHA", variant.digest, 0]


def _variant(text: str) -> _Variant:
    return _Variant(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _lua(name: str) -> str:
    return files("errands.broker").joinpath("lua", f"{name}.lua").read_text()


def _joined(*names: str) -> str:
    return "\n".join(map(_lua, names))


def _whole() -> str:
    moves = {state.value: {before.value if before else "none" for before in MOVES[state]} for state in MOVES}
    moves[Kind.REOPENED.value] = {"none", *(state.value for state in FINAL)}
    moves["final"] = {state.value for state in FINAL}
    table = ", ".join(
        f"{after} = {{{', '.join(f'{before} = true' for before in sorted(befores))}}}"
        for after, befores in sorted(moves.items())
    )
    parts = _joined(
        "attempt", "write_event", "schedule", "unique", "fair", "put", "keep", "limits", "waiting", "batch",
        "ordinary", "record", "commit",
    )  # fmt: skip
    return f"local MOVES = {{{table}}}\n{parts}"
