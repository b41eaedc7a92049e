"""Operations on runs: committed in one call, said again without being done twice, fenced."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from errands.broker.answer import Answer
from errands.broker.commit import Commit
from errands.broker.errors import NotHeard
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.broker.operations import Result, replies, said_again, store
from errands.broker.runs import LiveRuns, Reply, Verdict
from errands.broker.script import Script
from errands.core.events import Event, Kind
from errands.core.states import State

# For what would disturb others: a server that no other process of these tests uses.
alone = pytest.mark.parametrize("url", ["valkey_url"], indirect=True)


def event(kind: Kind, run_id: str = "r", **facts: Any) -> Event:
    return Event(kind=kind, run_id=run_id, at=100.0, **facts)


def messages(server: redis.Redis, key_prefix: str, level: str = "normal") -> list[bytes]:
    rows: Any = server.xrange(f"{key_prefix}q:mail:{level}")
    return [fields[b"m"] for _, fields in rows]


def putting(live: LiveRuns, run_id: str = "r", **options: Any) -> Any:
    told = event(Kind.QUEUED, run_id, task="t", queue="mail")
    defaults: dict[str, Any] = {"queue": "mail", "priority": None, "message": b"{}"}
    return live.putting(told, run_id=run_id, **(defaults | options))


def test_a_message_and_what_tells_of_it_are_one_call(
    live: LiveRuns, server: redis.Redis, key_prefix: str
) -> None:
    replies = live.commit([putting(live, f"r{number}", message=b"m%d" % number) for number in range(3)])
    assert [reply.verdict for reply in replies] == ["ok"] * 3
    assert messages(server, key_prefix) == [b"m0", b"m1", b"m2"]
    assert [run.state for run in live.get_many(["r0", "r1", "r2"]).values()] == [State.QUEUED] * 3
    told = EventStream(server, f"{key_prefix}events").read()
    assert [entry[1].run_id for entry in told if entry[1]] == ["r0", "r1", "r2"]


@pytest.mark.parametrize(("priority", "level"), [(None, "normal"), (0, "normal"), (9, "high"), (1, "low")])
def test_priorities_are_levels(
    live: LiveRuns, server: redis.Redis, key_prefix: str, priority: int | None, level: str
) -> None:
    live.commit([putting(live, priority=priority)])
    assert messages(server, key_prefix, level) == [b"{}"]


def test_a_message_due_later_waits_by_its_runs_id(
    live: LiveRuns, server: redis.Redis, key_prefix: str
) -> None:
    live.commit([putting(live, due=2_000_000_000.0)])
    assert server.zrange(f"{key_prefix}q:mail:delayed", 0, -1, withscores=True) == [(b"r", 2e12)]
    assert messages(server, key_prefix) == []


def test_a_known_id_is_not_sent_again(live: LiveRuns, server: redis.Redis, key_prefix: str) -> None:
    first, second = live.commit([putting(live, unless_known=True)] * 2)
    assert (first.verdict, second.verdict) == (Verdict.OK, Verdict.KNOWN)
    assert len(messages(server, key_prefix)) == 1


def test_what_was_not_heard_is_said_again_and_done_once(
    live: LiveRuns, url: str, server: redis.Redis, key_prefix: str, speak_as: Callable[[str], None]
) -> None:
    """As when the answer to the first call was lost with its connection."""
    speak_as("w1")
    life = [
        putting(live),
        live.recording(event(Kind.STARTED), hop=0),
        live.recording(event(Kind.SUCCEEDED), hop=0, attempt=1, result=Result(f"{key_prefix}res", 60, "1")),
    ]
    for operation in life:
        first = live.commit([operation])[0]
        again = live.commit([said_again(operation)])[0]
        assert again.attempt == first.attempt
        assert again.verdict in (Verdict.OK, Verdict.KNOWN)
    assert len(messages(server, key_prefix)) == 1
    kinds = [entry[1].kind for entry in EventStream(server, f"{key_prefix}events").read() if entry[1]]
    assert kinds == [Kind.QUEUED, Kind.STARTED, Kind.SUCCEEDED]


def test_a_second_worker_is_told_apart_from_one_that_says_it_again(
    live: LiveRuns, speak_as: Callable[[str], None]
) -> None:
    speak_as("w1")
    starting = live.recording(event(Kind.STARTED), hop=0)
    live.commit([starting])
    speak_as("w2")
    assert live.commit([said_again(starting)])[0].verdict is Verdict.RUNNING


def test_a_late_owner_is_fenced_and_so_is_its_result(
    live: LiveRuns, server: redis.Redis, key_prefix: str, speak_as: Callable[[str], None]
) -> None:
    """Frozen for a minute, a worker wakes up and tells of an attempt that another one has taken over."""
    key = f"{key_prefix}res"
    speak_as("w1")
    assert live.record(event(Kind.STARTED), hop=0).attempt == 1
    speak_as("w2")
    assert live.record(event(Kind.STARTED), hop=0, redelivered=True).attempt == 2
    speak_as("w1")
    late = live.record(event(Kind.SUCCEEDED), hop=0, attempt=1, result=Result(key, 60, "late"))
    assert late.verdict is Verdict.STALE
    assert server.get(key) is None
    speak_as("w2")
    ended = live.record(event(Kind.SUCCEEDED), hop=0, attempt=2, result=Result(key, 60, "good"))
    assert ended.verdict is Verdict.OK
    assert server.get(key) == b"good"


def test_a_child_that_died_unheard_does_not_keep_its_run(
    live: LiveRuns, server: redis.Redis, key_prefix: str, speak_as: Callable[[str], None]
) -> None:
    """Its worker lives, and so does the lease; Celery gave the message to another child."""
    speak_as("w1")
    server.set(f"{key_prefix}lease:w1", 1, ex=60)
    live.record(event(Kind.STARTED, pid=1), hop=0)
    assert live.record(event(Kind.STARTED, pid=2), hop=0).verdict is Verdict.RUNNING
    assert live.record(event(Kind.STARTED, pid=2), hop=0, died=True) == Reply(Verdict.OK, 2, 2)
    run = live.get("r")
    assert run is not None
    assert run.facts["pid"] == 2


def test_who_took_an_uncounted_attempt_over_is_its_only_owner(
    live: LiveRuns, speak_as: Callable[[str], None]
) -> None:
    """Given back at a stop, the attempt has the same number with its next owner."""
    speak_as("w1")
    live.record(event(Kind.STARTED), hop=0)
    live.record(event(Kind.SNOOZED), hop=0)
    speak_as("w2")
    assert live.record(event(Kind.STARTED), hop=0, redelivered=True).attempt == 1
    speak_as("w1")
    assert live.record(event(Kind.SUCCEEDED), hop=0, attempt=1).verdict is Verdict.STALE


def test_a_stored_success_stays(live: LiveRuns, server: redis.Redis, key_prefix: str) -> None:
    key = f"{key_prefix}res"
    success = json.dumps({"status": "SUCCESS", "result": 1})
    live.store(Result(key, 0, success), '"status": ?"SUCCESS"')
    live.store(Result(key, 60, '{"status": "FAILURE"}'), '"status": ?"SUCCESS"')
    assert server.get(key) == success.encode()
    assert server.ttl(key) == -1


def test_what_the_script_did_besides_has_no_reply_here() -> None:
    """The end of a batch's last member brings what follows the batch, in the same call."""
    one = store(Result("key", 60, "value"))
    answer = [b"ok", 1, 0, b"", b"ok", 2, 0, b"", b"ok", 0, 0, b""]
    assert replies(answer, [one], again=False) == [Reply(Verdict.OK, 1, 0)]
    assert [reply.attempt for reply in replies(answer, [one, one], again=False)] == [1, 2]


async def test_an_answer_is_heard_in_order_and_awaited() -> None:
    loop = asyncio.get_running_loop()
    answer, heard = Answer(loop), []
    answer.then(lambda: heard.append("first"))
    answer.then(lambda: 1 / 0)  # the others hear it all the same
    answer.then(lambda: heard.append("second"))
    waiting = [asyncio.ensure_future(_awaited(answer)) for _ in range(2)]
    cancelled = asyncio.ensure_future(_awaited(answer))
    await asyncio.sleep(0)
    cancelled.cancel()
    reply = Reply(Verdict.OK, 1, 0)
    answer.give(reply)
    assert heard == ["first", "second"]
    assert await asyncio.gather(*waiting) == [reply, reply]
    assert await answer == reply
    answer.then(lambda: heard.append("late"))
    assert heard[-1] == "late"
    refused = Answer(loop)
    refused.give(None, redis.ResponseError("full"))
    with pytest.raises(redis.ResponseError):
        await refused


async def _awaited(answer: Answer) -> Reply:
    return await answer


def test_who_waits_for_a_result_is_woken(live: LiveRuns, server: redis.Redis, key_prefix: str) -> None:
    key = f"{key_prefix}res"
    with server.pubsub() as listener:
        listener.subscribe(key)
        assert listener.get_message(timeout=5)  # that it is subscribed
        live.store(Result(key, 60, "value"))
        told = listener.get_message(timeout=5)
    assert told is not None
    assert told["data"] == b"value"


@alone
def test_a_server_that_forgot_the_script_is_told_it(live: LiveRuns, server: redis.Redis) -> None:
    live.record(event(Kind.QUEUED))
    server.script_flush()
    assert live.record(event(Kind.STARTED), hop=0).verdict is Verdict.OK


@alone
def test_a_connection_that_was_closed_meanwhile_is_made_anew(live: LiveRuns, server: redis.Redis) -> None:
    live.record(event(Kind.QUEUED))
    server.client_kill_filter(_type="normal", skipme=True)
    assert live.record(event(Kind.STARTED), hop=0).verdict is Verdict.OK


def test_nobody_there_is_an_error_in_words() -> None:
    commit = Commit("redis://127.0.0.1:1", Script(Keys("x:"), events_max=1000, max_deliveries=3))
    with pytest.raises(redis.ConnectionError, match="refused"):
        commit.run([said_again(["store", "k", 0, "v", ""])], 0.25)


@alone
def test_a_server_that_is_silent_may_have_heard(url: str, server: redis.Redis, key_prefix: str) -> None:
    commit = Commit(url, Script(Keys(key_prefix), events_max=1000, max_deliveries=3))
    operation = ["store", f"{key_prefix}k", 0, "v", ""]
    commit.run([operation], 0.25)
    server.execute_command("CLIENT", "PAUSE", 600, "ALL")
    with pytest.raises(NotHeard):
        commit.run([operation], 0.25)


@alone
async def test_one_turn_of_a_loop_is_one_call(
    url: str, live: LiveRuns, server: redis.Redis, key_prefix: str
) -> None:
    def calls() -> int:
        stats: Any = server.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))

    await live.acommit([putting(live, "warm")])
    before = calls()
    replies = await asyncio.gather(*(live.acommit([putting(live, f"r{n}")]) for n in range(100)))
    assert [reply.verdict for [reply] in replies] == ["ok"] * 100
    assert len(messages(server, key_prefix)) == 101
    assert calls() - before <= 3  # other tests may use the server meanwhile


def test_loops_that_have_ended_keep_no_connection(live: LiveRuns, server: redis.Redis) -> None:
    """A web framework may make a loop for each request."""
    for number in range(5):
        asyncio.run(live.acommit([putting(live, f"r{number}")]))
    assert len(live._batches) == 1


async def test_threads_share_the_calls_of_the_loop(url: str, live: LiveRuns, key_prefix: str) -> None:
    batch = live.batch_on(asyncio.get_running_loop())
    found: list[Verdict] = []

    def work(number: int) -> None:
        found.append(live.record(event(Kind.QUEUED, f"r{number}")).verdict)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
    assert found == ["ok"] * 8
    await batch.drain()
    live.unbatch()


async def test_progress_waits_for_nobody_and_keeps_its_place(live: LiveRuns) -> None:
    batch = live.batch_on(asyncio.get_running_loop())
    live.record(event(Kind.PROGRESS, progress={"current": 1}), hop=0)
    await asyncio.sleep(0)
    await batch.drain()
    live.unbatch()
    run = live.get("r")
    assert run is None  # a run that nobody knows gets no state from progress


@alone
async def test_a_batch_goes_on_when_its_connection_breaks(live: LiveRuns, server: redis.Redis) -> None:
    batch = live.batch_on(asyncio.get_running_loop())
    assert (await live.acommit([putting(live, "a")]))[0].verdict is Verdict.OK
    server.client_kill_filter(_type="normal", skipme=True)
    assert (await live.acommit([putting(live, "b")]))[0].verdict is Verdict.OK
    await batch.drain()
    live.unbatch()
