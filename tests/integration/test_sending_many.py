"""Many calls: a chunk a round trip, read as they go; and the same for asyncio code."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from errands import Errands, InvalidArguments, Keyring, Secret, Settings
from errands.core.errors import BrokerUnavailable, PayloadTooLarge, SecretError
from errands.doors.local.valkey import EmbeddedValkey
from errands.testing import capture, inline


@pytest.fixture
def app(tmp_path: Path, valkey_url: str, key_prefix: str) -> Errands:
    settings = Settings(home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix)
    app = Errands("many", settings=settings, set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="hide")
    def hide(x: int, *, token: Secret[str] = "") -> None: ...

    return app


def accepted(app: Errands) -> list[dict[str, Any]]:
    """What is known of the runs that wait, oldest first."""
    entries: Any = app.valkey.xrange(f"{app.settings.key_prefix}q:celery:normal")
    ids = [msgspec.json.decode(fields[b"m"])["headers"]["id"] for _, fields in entries]
    runs = app.live.get_many(ids)
    return [runs[run_id].facts for run_id in ids]


def waiting(app: Errands) -> int:
    return int(app.valkey.xlen(f"{app.settings.key_prefix}q:celery:normal"))


def calls_of_the_script(app: Errands) -> int:
    stats: Any = app.valkey.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def test_calls_are_tuples_mappings_or_signatures(app: Errands) -> None:
    add = app.tasks["add"]
    ids = add.delay_many([(1,), [2, 3], {"x": "4"}, add.s(5, y=6).set(task_id="mine")])
    assert ids[3] == "mine"
    assert len(set(ids)) == 4
    assert ids[:3] == sorted(ids[:3])
    told = accepted(app)
    assert [facts["args"] for facts in told] == [[1], [2, 3], [], [5]]
    assert [facts["kwargs"] for facts in told] == [{}, {}, {"x": 4}, {"y": 6}]


def test_a_chunk_is_one_round_trip(app: Errands) -> None:
    add = app.tasks["add"]
    add.delay(0)
    before = calls_of_the_script(app)
    ids = add.delay_many(((n,) for n in range(1000)), chunk=250)
    assert calls_of_the_script(app) - before == 4
    assert (len(set(ids)), waiting(app)) == (1000, 1001)
    assert [facts["args"] for facts in accepted(app)[1:]] == [[n] for n in range(1000)]


def test_calls_are_read_a_chunk_ahead_and_no_further(app: Errands) -> None:
    """A million calls need no more memory than two chunks: one on its way while the next is made ready."""
    seen: list[int] = []

    def calls() -> Iterator[tuple[int]]:
        for n in range(100):
            seen.append(waiting(app))
            yield (n,)

    app.tasks["add"].delay_many(calls(), chunk=10)
    begun = [n // 10 * 10 for n in range(100)]
    assert all(chunk - 10 <= accepted <= chunk for accepted, chunk in zip(seen, begun, strict=True)), seen


def test_large_messages_go_in_smaller_chunks(app: Errands) -> None:
    @app.task(name="read")
    def read(text: str) -> None: ...

    read.delay("warm up")
    before = calls_of_the_script(app)
    read.delay_many((("x" * 60_000,) for _ in range(50)), chunk=500)
    assert calls_of_the_script(app) - before == 3  # a mebibyte each


def test_options_and_owner_are_those_of_all(app: Errands) -> None:
    ids = app.tasks["add"].delay_many([(1,), (2,)], countdown=60, owner="7")
    due: Any = app.valkey.zrange(f"{app.settings.key_prefix}q:celery:delayed", 0, -1)
    assert sorted(member.decode() for member in due) == sorted(ids)
    run = app.live.get(ids[0])
    assert run is not None
    assert run.facts["owner"] == "7"


def test_a_bad_call_is_named_and_nothing_of_its_chunk_is_sent(app: Errands) -> None:
    calls = [(n,) for n in range(25)] + [("no number",)] + [(1,)]
    with pytest.raises(InvalidArguments, match=r"call 25: x: .*valid integer.*20 calls before it were acc"):
        app.tasks["add"].delay_many(calls, chunk=10)
    assert waiting(app) == 20
    with pytest.raises(InvalidArguments, match=r"call 1: .*write a tuple of one, \('5',\)"):
        app.tasks["add"].delay_many([(1,), 5])
    with pytest.raises(InvalidArguments, match="call 0: this is a signature of hide"):
        app.tasks["add"].delay_many([app.tasks["hide"].s(1)])
    with pytest.raises(PayloadTooLarge, match=r"call 1: the arguments weigh"):
        app.task(name="read")(_read).delay_many([("x",), ("x" * 70_000,)])
    with pytest.raises(SecretError, match=r"call 1: there is no key.*; 0 calls before it were accepted"):
        app.tasks["hide"].delay_many([(1,), {"x": 1, "token": "open sesame"}])
    with pytest.raises(ValueError, match="chunk=0"):
        app.tasks["add"].delay_many([(1,)], chunk=0)
    assert waiting(app) == 20


def _read(text: str) -> None: ...


def test_secrets_are_sealed_in_each(tmp_path: Path, valkey_url: str, key_prefix: str) -> None:
    settings = Settings(
        home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix, secret_keys=Keyring.new_key()
    )
    app = Errands("many", settings=settings, set_as_current=False)

    @app.task(name="hide")
    def hide(x: int, *, token: Secret[str] = "") -> None: ...

    hide.delay_many({"x": n, "token": f"sesame {n}"} for n in range(3))
    assert all(facts["kwargs"]["token"].startswith("sealed:") for facts in accepted(app))


def test_what_celery_has_to_send_is_sent_one_by_one(app: Errands) -> None:
    ids = app.tasks["add"].delay_many([(1,), (2,)], compression="zlib")
    assert [run.run_id for run_id in ids if (run := app.live.get(run_id))] == ids
    assert waiting(app) == 2


def test_in_tests_of_applications_it_runs_or_is_caught(app: Errands) -> None:
    add = app.tasks["add"]
    with capture(app) as enqueued:
        ids = add.delay_many([(1,), {"x": 2}])
        assert [sent.id for sent in enqueued.sent] == ids
        enqueued.assert_enqueued(add, x=2)
    with inline(app) as runs:
        found = runs.get_many(add.delay_many([(1, 1), (2, 2)]))
        assert [run.facts["result"] for run in found.values()] == [2, 4]
    assert waiting(app) == 0


def test_a_broker_that_dies_in_the_middle_is_told_with_what_was_accepted(
    tmp_path: Path, key_prefix: str
) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        settings = Settings(home=tmp_path, broker_url=server.url, key_prefix=key_prefix)
        app = Errands("many", settings=settings, set_as_current=False)

        @app.task(name="add")
        def add(x: int) -> None: ...

        def calls() -> Iterator[tuple[int]]:
            for n in range(100):
                if n == 25:
                    server.stop()
                yield (n,)

        with pytest.raises(
            BrokerUnavailable, match=r"add: calls 20 to 29.*The 20 calls before them were accepted"
        ):
            add.delay_many(calls(), chunk=10)


@pytest.mark.parametrize("loop", [False, True], ids=["blocking", "asyncio"])
def test_a_broker_that_stands_still_in_the_middle_is_waited_for(
    loop: bool, tmp_path: Path, key_prefix: str
) -> None:
    """Longer than a single call would wait; what it had taken already is not taken twice."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        settings = Settings(home=tmp_path, broker_url=server.url, key_prefix=key_prefix)
        app = Errands("many", settings=settings, set_as_current=False)
        app.task(name="read")(_read)
        assert server.process is not None

        def calls() -> Iterator[tuple[str]]:
            for n in range(100):
                if n == 25:
                    assert server.process is not None
                    server.process.send_signal(signal.SIGSTOP)
                    threading.Timer(1.0, server.process.send_signal, [signal.SIGCONT]).start()
                yield (str(n),)

        task = app.tasks["read"]
        ids = asyncio.run(task.adelay_many(calls(), chunk=10)) if loop else task.delay_many(calls(), chunk=10)
        assert len(set(ids)) == 100
        assert waiting(app) == 100


# -- asyncio


async def test_asyncio_code_needs_no_thread_and_one_turn_is_one_call(app: Errands) -> None:
    add = app.tasks["add"]
    await add.adelay(0)
    before, threads = calls_of_the_script(app), set(threading.enumerate())
    results = await asyncio.gather(*[add.adelay(n, y=1) for n in range(100)])
    assert calls_of_the_script(app) - before <= 2
    assert set(threading.enumerate()) == threads
    assert len({result.id for result in results}) == 100
    assert (await add.aapply_async((1,), task_id="mine", countdown=60)).id == "mine"
    assert app.live.get("mine") is not None
    assert waiting(app) == 101


async def test_asyncio_code_sends_by_name(app: Errands) -> None:
    direct = await app.asend_task("add", (1, 2))
    by_celery = await app.asend_task("add", (3,), compression="zlib")
    assert [facts["args"] for facts in accepted(app)] == [[1, 2], [3]]
    assert app.live.known(direct.id)
    assert app.live.known(by_celery.id)
    with pytest.raises(PayloadTooLarge):
        await app.asend_task("add", ("x" * 70_000,))


async def test_asyncio_code_is_refused_bad_arguments_too(app: Errands) -> None:
    with pytest.raises(InvalidArguments, match="valid integer"):
        await app.tasks["add"].adelay("no number")


async def test_many_calls_of_asyncio_code(app: Errands) -> None:
    add = app.tasks["add"]
    ids = await add.adelay_many(((n,) for n in range(300)), chunk=100)
    assert [facts["args"] for facts in accepted(app)] == [[n] for n in range(300)]
    assert len(set(ids)) == 300
    with pytest.raises(InvalidArguments, match=r"call 100: .*100 calls before it were accepted"):
        await add.adelay_many([*[(n,) for n in range(100)], ("x",)], chunk=100)
    assert len(await add.adelay_many([(1,), (2,)], compression="zlib")) == 2
    assert waiting(app) == 402


async def test_asyncio_code_that_celery_has_to_send_for_goes_on(app: Errands) -> None:
    result = await app.tasks["add"].aapply_async((1,), compression="zlib")
    assert app.live.get(result.id) is not None
    with inline(app):
        assert (await app.tasks["add"].adelay(2, 3)).get() == 5


def test_each_loop_sends_by_itself(app: Errands) -> None:
    async def send() -> None:
        await asyncio.gather(*[app.tasks["add"].adelay(n) for n in range(10)])

    threads = [threading.Thread(target=asyncio.run, args=(send(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    asyncio.run(send())
    assert waiting(app) == 40


def test_threads_send_side_by_side(app: Errands) -> None:
    def send() -> None:
        for n in range(50):
            app.tasks["add"].delay(n)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert waiting(app) == 200
