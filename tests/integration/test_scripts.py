"""The three sizes of the script: what the small ones do is what the whole one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from errands.broker.client import Clients
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.broker.operations import Operation, Result, said_again, store
from errands.broker.runs import LiveRuns, Verdict
from errands.broker.script import Script
from errands.core.events import Event, Kind
from errands.core.states import State

NOTHING = store(Result("unused", 60, "x"), unless="x")  # makes a call one for the whole script


def event(kind: Kind, run_id: str = "r", **facts: Any) -> Event:
    return Event(kind=kind, run_id=run_id, at=100.0, **facts)


def putting(live: LiveRuns, run_id: str = "r", **options: Any) -> Operation:
    told = event(Kind.QUEUED, run_id, task="t", queue="mail")
    defaults: dict[str, Any] = {"queue": "mail", "priority": None, "message": b"{}"}
    return live.putting(told, run_id=run_id, **(defaults | options))


def starting(live: LiveRuns, run_id: str) -> Operation:
    return live.recording(event(Kind.STARTED, run_id, worker="w"), hop=0, time_limit=60)


def ending(
    live: LiveRuns, run_id: str, *, attempt: int | None = 1, kind: Kind = Kind.SUCCEEDED, prefix: str = ""
) -> Operation:
    kept = Result(f"{prefix}result-{run_id}", 60, "7")
    return live.recording(event(kind, run_id, attempt=attempt), hop=0, attempt=attempt, result=kept)


def all_of(server: Any, key_prefix: str, shelf: str) -> dict[str, Any]:
    """What lies under the prefix, without what depends on the moment."""
    found: dict[str, Any] = {}
    moments = (b"kept", b"taken")
    for key in sorted(server.keys(f"{key_prefix}{shelf}*")):
        name = key.decode().removeprefix(f"{key_prefix}{shelf}")
        if server.type(key) == b"stream":
            found[name] = [fields for _, fields in server.xrange(key)]
        else:
            found[name] = {field: told for field, told in server.hgetall(key).items() if field not in moments}
            assert 0 < server.ttl(key) <= 7 * 24 * 3600
    return found


@pytest.mark.parametrize("unless_known", [False, True])
def test_the_short_script_sends_as_the_whole_one_does(
    url: str, key_prefix: str, server: redis.Redis, *, unless_known: bool
) -> None:
    """`send.lua` says in one piece what `commit.lua` says: new runs, known ones, one told of too late."""
    short, whole = (LiveRuns(Clients(url), Keys(f"{key_prefix}{name}:")) for name in ("short", "whole"))
    answers = []
    for live, more in ((short, []), (whole, [NOTHING])):
        live.record(event(Kind.STARTED, "hasty"), hop=0)  # a worker was faster than who tells of it
        told = []
        for names in (("new", "other"), ("hasty", "new"), [f"many{n % 3}" for n in range(4)]):
            said = [putting(live, run_id, unless_known=unless_known) for run_id in names]
            told += live.commit(said + more)[: len(said)]
        answers.append([reply[:2] for reply in told])
    assert answers[0] == answers[1]
    assert answers[0][1:3] == [(Verdict.OK, 0), (Verdict.KNOWN, 0 if unless_known else 1)]
    server.delete(f"{key_prefix}short:unused", "unused")
    assert all_of(server, key_prefix, "short:") == all_of(server, key_prefix, "whole:")


def test_which_script_is_chosen(live: LiveRuns, key_prefix: str, speak_as: Callable[[str], None]) -> None:
    speak_as("")
    script = Script(Keys(key_prefix), events_max=10, max_deliveries=3)
    plain, ruled = putting(live, "a"), putting(live, "b", rules='{"batch":{}}')
    later, fair = putting(live, "c", wait=5.0), putting(live, "d", tenant="7")
    again = live.putting(event(Kind.REOPENED, "e"), run_id="e", queue="mail", priority=None, message=b"{}")
    untold = live.putting(None, run_id="f", queue="mail", priority=None, message=b"{}")
    sets = ([plain], [plain, plain], [ruled], [later], [fair], [again], [untold], [plain, later])
    chosen = [script.command(each)[1] for each in sets]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) == 2
    assert chosen[0] not in chosen[2:]
    start, end = starting(live, "a"), ending(live, "a")
    redelivered = live.recording(event(Kind.STARTED, "a"), hop=0, flags="r")
    limited = live.recording(event(Kind.STARTED, "a"), hop=0, rules='{"rules":[]}')
    unnumbered, failed = ending(live, "a", attempt=None), ending(live, "a", kind=Kind.FAILED)
    whole = chosen[2]
    assert script.command([start])[1] == whole  # nobody but a worker has an attempt
    speak_as("worker/1")
    whole = script.command([ruled])[1]
    lives = script.command([start])[1]
    assert lives not in (whole, *chosen)
    assert script.command([start, end])[1] == lives
    for other in (redelivered, limited, unnumbered, failed, said_again(start), plain):
        assert script.command([start, other])[1] == whole


def test_the_script_of_lives_records_as_the_whole_one_does(
    url: str, key_prefix: str, server: redis.Redis, speak_as: Callable[[str], None]
) -> None:
    answers = []
    for name, more in (("short", []), ("whole", [NOTHING])):
        live = LiveRuns(Clients(url), Keys(f"{key_prefix}{name}:"))
        speak_as("")
        live.commit([putting(live, run_id) for run_id in ("a", "b", "gone", "revoked")])
        live.record(event(Kind.REVOKED, "revoked"))
        speak_as("worker/1")
        place = f"{key_prefix}{name}:"
        told = live.commit([starting(live, run_id) for run_id in ("a", "b", "gone")] + more)[:3]
        for operation in (
            ending(live, "a", prefix=place),  # ordinary
            starting(live, "a"),  # it has ended
            ending(live, "b", attempt=2, prefix=place),  # another attempt's word
            starting(live, "revoked"),
            starting(live, "unknown"),  # sent by a plain Celery producer
            ending(live, "unknown", prefix=place),
        ):
            told += live.commit([operation, *more])[:1]
        speak_as("worker/2")
        told += live.commit([ending(live, "b", prefix=place), *more])[:1]  # another worker's run
        answers.append([reply[:3] for reply in told])
    assert answers[0] == answers[1]
    assert [verdict for verdict, *_ in answers[0][3:]] == [
        Verdict.OK, Verdict.REFUSED, Verdict.STALE, Verdict.REFUSED, Verdict.OK, Verdict.OK, Verdict.STALE,
    ]  # fmt: skip
    server.delete("unused")
    short, whole = (
        {key: server.get(f"{key_prefix}{name}:result-{key}") for key in ("a", "b", "unknown")}
        for name in ("short", "whole")
    )
    assert short == whole == {"a": b"7", "b": None, "unknown": b"7"}
    server.delete(*(f"{key_prefix}{name}:result-{key}" for name in ("short", "whole") for key in short))
    assert all_of(server, key_prefix, "short:") == all_of(server, key_prefix, "whole:")


async def test_what_is_no_ordinary_life_is_asked_in_full_and_in_order(
    live: LiveRuns, speak_as: Callable[[str], None]
) -> None:
    """On a worker's loop as well: some lives of a call are ordinary, and the others are not."""
    names = [f"r{number}" for number in range(6)]
    live.commit([putting(live, name) for name in names[::2]])  # nobody has told of the others
    speak_as("worker/1")
    batch = live.batch_on(asyncio.get_running_loop())
    started = [batch.submit(starting(live, name)) for name in names]
    assert [(await answer).verdict for answer in started] == [Verdict.OK] * 6
    # A start that is asked in full is heard before what is said after it.
    late = [batch.submit(starting(live, "late")), batch.submit(ending(live, "late"))]
    assert [(await answer).verdict for answer in late] == [Verdict.OK, Verdict.OK]
    ended = [batch.submit(ending(live, name)) for name in names]
    assert [(await answer).verdict for answer in ended] == [Verdict.OK] * 6
    await batch.drain()
    live.unbatch()
    assert {run.state for run in live.get_many([*names, "late"]).values()} == {State.SUCCEEDED}


@pytest.mark.parametrize("url", ["valkey_url"], indirect=True)  # no other process of these tests uses it
async def test_two_calls_that_are_asked_in_full_keep_their_order(
    live: LiveRuns, server: redis.Redis, speak_as: Callable[[str], None]
) -> None:
    """Both are under way before the server answers, and both answers come at once."""
    speak_as("worker/1")
    batch = live.batch_on(asyncio.get_running_loop())
    await batch.submit(starting(live, "first"))  # the connection is there, and the script known
    server.client_pause(60_000, all=False)
    answers = [batch.submit(starting(live, "late"))]
    while len(batch._under_way) < 1:
        await asyncio.sleep(0)
    answers.append(batch.submit(ending(live, "late")))
    while len(batch._under_way) < 2:
        await asyncio.sleep(0)
    server.client_unpause()
    assert [(await answer).verdict for answer in answers] == [Verdict.OK, Verdict.OK]
    await batch.drain()
    live.unbatch()


def test_the_stream_of_events_keeps_to_its_most_though_a_call_writes_many(url: str, key_prefix: str) -> None:
    live = LiveRuns(Clients(url), Keys(key_prefix), events_max=1000)
    for turn in range(30):
        live.commit([putting(live, f"r{turn}-{number}") for number in range(100)])
    stream = EventStream(live._clients.sync, Keys(key_prefix).events)
    # The server drops whole nodes of its own, a hundred entries each.
    assert 1000 <= stream.length() <= 1000 + 100 + 100
