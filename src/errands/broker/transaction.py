"""One new run, sent by a transaction of plain commands: a script would cost the server as much again.

What `lua/send.lua` looks at needs no look here: an id that was made for this call is new, and what is done
together cannot be overtaken by a worker. What is said for a second time, or is anything else, is a script's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import redis
from hiredis import pack_command

from errands.broker.errors import NotHeard
from errands.broker.operations import OF_SENDING, Operation, Reply, Verdict

REPLIES = 6  # to MULTI, four commands and EXEC
_SENT = [Reply(Verdict.OK, 0, 0)]
# The commands as they go over the wire (RESP2). Little of it differs from call to call; to have each packed
# would take a caller longer than all else that is done here.
_COMMANDS = b"".join(
    (
        b"%b$%d\r\n%b\r\n$1\r\nf\r\n$1\r\n1\r\n",  # MULTI, XADD of the message, marked: `streams/moment.py`
        b"%b$%d\r\n%b\r\n$1\r\nn\r\n$1\r\n0\r\n",  # XADD of the event
        b"*8\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n$5\r\nstate\r\n$6\r\nqueued\r\n",
        b"$4\r\nkept\r\n$%d\r\n%b\r\n$6\r\nqueued\r\n$%d\r\n%b\r\n",
        b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n",
        b"*1\r\n$4\r\nEXEC\r\n",
    )
)
_AN_END = b"$0\r\n\r\n"


def packed(operation: Operation, prefix: str, events_max: int, now: float) -> bytes:
    """The commands that do `operation`, which `sends_new`.

    Args:
        prefix: of keys.
        events_max: entries that the stream of events may hold.
        now: seconds since 1970 by this machine's clock.
    """
    queue, level, message, run_id, _, event, seconds = OF_SENDING(operation)
    to_queue, to_events = _to_queue(prefix, queue, level), _to_events(prefix, events_max)
    run, kept, expires = f"{prefix}run:{run_id}".encode(), b"%d" % now, b"%d" % seconds
    size, of_event, of_run = len(message), len(event), len(run)
    return _COMMANDS % (
        to_queue, size, message, to_events, of_event, event, of_run, run, len(kept), kept, of_event, event,
        of_run, run, len(expires), expires,
    )  # fmt: skip


def outcome(answers: list[Any]) -> list[Reply]:
    """What the server's answers to `packed` say.

    Raises:
        NotHeard: it began no transaction, and may have done the commands one by one.
        redis.ResponseError: it refused, and did nothing.
    """
    if isinstance(answers[0], Exception):
        raise NotHeard(f"the server began no transaction: {answers[0]}") from answers[0]
    done = answers[-1]
    if not isinstance(done, list):
        raise next(answer for answer in answers if isinstance(answer, redis.RedisError))
    for answer in done:
        if isinstance(answer, redis.RedisError):
            raise answer
    return _SENT


@lru_cache(maxsize=1024)
def _to_queue(prefix: str, queue: str, level: str) -> bytes:
    command = _packed("XADD", f"{prefix}q:{queue}:{level}", "*", "m", "", "f", "1")
    return _packed("MULTI") + command.partition(_AN_END)[0]


@lru_cache(maxsize=16)
def _to_events(prefix: str, most: int) -> bytes:
    command = _packed("XADD", f"{prefix}events", "MAXLEN", "~", most, "*", "e", "", "n", "0")
    return command.partition(_AN_END)[0]


def _packed(*command: Any) -> bytes:
    packed: bytes = pack_command(command)
    return packed
