"""A single new run, sent by plain commands: the same as the script does, and no less safe."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.operations import Operation, Result, said_again, store
from errands.broker.runs import LiveRuns, Verdict
from errands.broker.script import Script
from errands.core import clock
from errands.core.events import Event, Kind
from errands.doors.local.valkey import EmbeddedValkey

pytestmark = pytest.mark.usefixtures("no_worker")

NOTHING = store(Result("unused", 60, "x"), unless="x")  # makes a call one for the whole script
WEEK = 7 * 24 * 3600


def queued(run_id: str) -> Event:
    return Event(kind=Kind.QUEUED, run_id=run_id, at=100.0, task="t", queue="mail", args=["ä\r\n$5"])


def putting(live: LiveRuns, run_id: str = "r", **options: Any) -> Operation:
    defaults: dict[str, Any] = {"queue": "mail", "priority": None, "message": b"{}"}
    return live.putting(queued(run_id), run_id=run_id, **(defaults | options))


def starting(live: LiveRuns, run_id: str) -> Operation:
    return live.recording(Event(kind=Kind.STARTED, run_id=run_id, at=101.0, worker="w"), hop=0, time_limit=60)


def whole(server: redis.Redis, prefix: str) -> dict[str, Any]:
    """What lies under the prefix; of the moment, only that it is one."""
    found: dict[str, Any] = {}
    for key in sorted(server.keys(f"{prefix}*")):
        name = key.decode().removeprefix(prefix)
        if server.type(key) == b"stream":
            found[name] = [fields for _, fields in server.xrange(key)]
            continue
        facts: Any = server.hgetall(key)
        assert abs(int(facts.pop(b"kept")) - clock.timestamp()) < 60
        assert WEEK - 60 < server.ttl(key) <= WEEK
        found[name] = facts
    return found


def test_it_leaves_what_the_script_leaves(url: str, key_prefix: str, server: redis.Redis) -> None:
    at_once, by_script = (LiveRuns(Clients(url), Keys(f"{key_prefix}{name}:")) for name in ("once", "script"))
    message = b'{"body": "\r\n*1\r\n\xff"}'
    told = at_once.commit([putting(at_once, "r", message=message, priority=9)])
    assert told == by_script.commit([putting(by_script, "r", message=message, priority=9), NOTHING])[:1]
    assert told == [(Verdict.OK, 0, 0, "")]
    server.delete("unused")
    left = whole(server, f"{key_prefix}once:")
    [entry] = left["q:mail:high"]
    assert entry.pop(b"f") == b"1"  # the mark of a new run: `streams/moment.py`
    assert left == whole(server, f"{key_prefix}script:")
    assert left.keys() == {"events", "q:mail:high", "run:r"}


def test_what_is_sent_so(live: LiveRuns, key_prefix: str, speak_as: Callable[[str], None]) -> None:
    speak_as("")
    script = Script(Keys(key_prefix), events_max=10, max_deliveries=3)
    plain = putting(live, "a")
    assert script.transaction([plain]) is not None
    others = (
        [plain, putting(live, "b")],
        [putting(live, "a", unless_known=True)],
        [said_again(plain)],
        [putting(live, "a", wait=5.0)],
        [putting(live, "a", tenant="7")],
        [putting(live, "a", rules='{"batch":{}}')],
        [live.putting(None, run_id="a", queue="mail", priority=None, message=b"{}")],
        [starting(live, "a")],
        [NOTHING],
    )
    assert [script.transaction(operations) for operations in others] == [None] * len(others)
    speak_as("worker/1")
    assert script.transaction([plain]) is None  # a worker goes on where the server is full


async def test_a_loop_sends_so_too(live: LiveRuns, server: redis.Redis, key_prefix: str) -> None:
    for run_id in ("a", "b"):  # the first one makes the connection
        assert await live.acommit([putting(live, run_id)]) == [(Verdict.OK, 0, 0, "")]
    assert server.xlen(f"{key_prefix}q:mail:normal") == 2
    assert server.hget(f"{key_prefix}run:b", "state") == b"queued"


@pytest.mark.parametrize("loop", [False, True])
async def test_a_user_who_may_begin_no_transaction_sends_each_run_once(
    tmp_path: Path, speak_as: Callable[[str], None], *, loop: bool
) -> None:
    """The commands in it are then done one by one, and nobody is told so: it is said again by the script."""
    speak_as("")
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        server = redis.Redis.from_url(valkey.url)
        server.acl_setuser("errands", enabled=True, passwords=["+word"], keys=["*"], categories=["+@all"],
                           commands=["-multi", "-exec"])  # fmt: skip
        live = LiveRuns(Clients(f"redis://errands:word@127.0.0.1:{valkey.port}/0"), Keys())
        for run_id in ("a", "b", "c"):
            told = (
                await live.acommit([putting(live, run_id)]) if loop else live.commit([putting(live, run_id)])
            )
            assert [reply.verdict for reply in told] == [Verdict.OK]
        assert server.xlen("errands:q:mail:normal") == 3
        assert server.xlen("errands:events") == 3
        log: Any = server.acl_log()
        assert (
            sum(entry["count"] for entry in log if entry["object"] == "multi") == 1
        )  # it is not tried again


def test_a_key_of_another_kind_is_an_error(live: LiveRuns, server: redis.Redis, key_prefix: str) -> None:
    server.set(f"{key_prefix}q:mail:normal", "no stream")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        live.commit([putting(live)])


@pytest.mark.parametrize(("off", "renewed"), [(0, False), (59 * 60, False), (86_400, True), (-86_400, True)])
def test_a_producers_clock_does_not_make_a_run_forgotten(
    live: LiveRuns, server: redis.Redis, key_prefix: str, speak_as: Callable[[str], None], off: int, *,
    renewed: bool,
) -> None:  # fmt: skip
    """When the time to live was set is known by the producer's clock; one that is wrong is not relied on."""
    speak_as("")
    with clock.use(clock.FakeClock(datetime.now(UTC) + timedelta(seconds=off))):
        live.commit([putting(live)])
    server.expire(f"{key_prefix}run:r", 1000)
    speak_as("worker/1")
    assert live.commit([starting(live, "r")])[0].verdict is Verdict.OK
    assert (server.ttl(f"{key_prefix}run:r") > 1000) is renewed
