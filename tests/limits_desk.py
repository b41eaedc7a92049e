"""Runs under limits, started and let wait by hand on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

import pytest
import redis

from errands.broker import leases, queues
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.limits import Limits
from errands.broker.operations import wait, wait_as_it_is
from errands.broker.runs import LiveRuns, Reply
from errands.broker.streams.layout import GROUP, place_of, split_tag, tag_of
from errands.core.events import Event, Kind
from errands.core.limits import Bound, Declared

QUEUE = "mail"
MINUTE = 60_000_000  # µs
_LUA = files("errands.broker").joinpath("lua")
_LOOK = "\n".join(
    [_LUA.joinpath(f"{name}.lua").read_text() for name in ("limits", "attempt", "waiting")]
    + ["local look, more = look_at_limits({prefix = ARGV[1]}, 100)", "return {look, more and 1 or 0}"]
)


def event(kind: Kind, run_id: str = "r", **facts: Any) -> Event:
    return Event(kind=kind, run_id=run_id, at=100.0, task="t", **facts)


def _told(run_id: str) -> str:
    return event(Kind.LIMITED, run_id, note="waits").to_json().decode()


def rate(most: int = 2, cost: int = 1, key: str = "", period: int = MINUTE, name: str = "t") -> list[Any]:
    return [f"rate:{name}:{key}", cost, most, period]


def slots(most: int = 1, key: str = "", name: str = "t") -> list[Any]:
    return [f"slots:{name}:{key}", 1, most, 0]


class Desk:
    """Runs of one task, started and let wait by hand."""

    def __init__(self, url: str, prefix: str) -> None:
        self.keys = Keys(prefix)
        self.server = redis.Redis.from_url(url)
        self.live = LiveRuns(Clients(url), self.keys)
        declared = {
            "rate:t": Declared("t", Bound(2, 60), None, ("t",)),
            "slots:t": Declared("t", Bound(2, 0), None, ("t",)),
        }
        self.limits = Limits(Clients(url), self.keys, declared, None)

    def queued(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.live.record(event(Kind.QUEUED, run_id))

    def start(self, run_id: str, *rules: list[Any], hop: int = 0, **options: Any) -> Reply:
        said = json.dumps({"rules": rules, **({"apart": 1} if options.pop("apart", False) else {})})
        return self.live.record(event(Kind.STARTED, run_id), hop=hop, rules=said, **options)

    def wait(
        self, run_id: str, *rules: list[Any], since: int = 0, level: str = "normal", hop: int = 0,
        attempt: int = 0, **more: Any,
    ) -> Reply:  # fmt: skip
        said = {"rules": rules, "hop": hop, "attempt": attempt, "since": since, "told": _told(run_id), **more}
        put = self.live.putting(
            None, run_id=run_id, queue=QUEUE, priority={"high": 9, "normal": 5, "low": 1}[level],
            message=f"{run_id}:{hop}".encode(),
        )  # fmt: skip
        return self.live.commit([wait(put, json.dumps(said))])[0]

    def take(self, message: bytes, stream: str) -> str:
        """Put a message into a stream, and be given it as a worker is: its tag."""
        entry: Any = self.server.xadd(stream, {"m": message, "d": "1"})
        with suppress(redis.ResponseError):  # it is there
            self.server.xgroup_create(stream, GROUP, "0")
        self.server.xreadgroup(GROUP, "w", {stream: ">"})
        return tag_of(stream, entry.decode())

    def move(self, tag: str, run_id: str, *rules: list[Any], since: int = 0, hop: int = 0) -> Reply:
        said = {
            "rules": rules, "hop": hop, "attempt": 0, "since": since, "told": _told(run_id),
            "at": split_tag(tag),
        }  # fmt: skip
        return self.live.commit([wait_as_it_is(*place_of(self.keys, tag), run_id, json.dumps(said))])[0]

    def end(self, run_id: str, kind: Kind = Kind.SUCCEEDED, **options: Any) -> Reply:
        return self.live.record(event(kind, run_id), hop=0, **options)

    def look(self) -> tuple[int, bool]:
        ms, more = self.server.eval(_LOOK, 0, self.keys.prefix)
        return int(ms), bool(more)

    def sent(self, level: str = "normal") -> list[str]:
        """The messages that were let go on, in their order."""
        rows: Any = self.server.xrange(self.keys.front(QUEUE, level))
        return [fields[b"m"].decode().partition(":")[0] for _, fields in rows]

    def pass_time(self, micros: float) -> None:
        """Backdate all that was noted, as if so much time had passed."""
        for pattern in ("*:times", "*:grants", "*:holders", "limits:waiting"):
            for key in self.server.keys(f"{self.keys.prefix}{pattern}"):
                for member, score in self.server.zrange(key, 0, -1, withscores=True):
                    if score != float("inf"):
                        self.server.zadd(key, {member: score - micros})

    def depth(self) -> queues.QueueDepth:
        return queues.depths(self.server, self.keys, [QUEUE])[QUEUE]

    def left(self) -> list[bytes]:
        patterns = ("*:lot", "*:limited*", "limits:waiting", "*:grants", "*:holders")
        return [key for pattern in patterns for key in self.server.keys(f"{self.keys.prefix}{pattern}")]


@pytest.fixture(params=["valkey_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def desk(url: str, key_prefix: str) -> Desk:
    return Desk(url, key_prefix)


@pytest.fixture
def work_as(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> Callable[[str], None]:
    """Speak for a worker that lives."""

    def become(holder: str) -> None:
        monkeypatch.setattr(leases, "_holder", holder)
        if holder:
            leases.renew(desk.server, desk.keys)

    return become
