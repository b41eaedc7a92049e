"""Lines of tenants in a queue: whose message comes next, and that all else of a queue holds there too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection

from errands.broker import leases, pause, queues
from errands.broker.client import Clients
from errands.broker.runs import LiveRuns
from errands.broker.streams import qos
from errands.broker.streams.layout import all_keys, streams_of
from errands.broker.streams.scripts import READ
from streams import QUEUE, Broker, drain, nothing_comes


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that another test ran in this process has said for how many tasks there is room, and speaks
    under its lease, which a full server listens to."""
    monkeypatch.setattr(qos, "_room", 0)
    monkeypatch.setattr(leases, "_holder", "")


@pytest.fixture(params=["valkey_url", "redis_url"])
def broker(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[Broker]:
    broker = Broker(str(request.getfixturevalue(request.param)), key_prefix)
    yield broker
    broker.close()


@pytest.fixture
def live(broker: Broker) -> LiveRuns:
    return LiveRuns(Clients(broker.url), broker.keys)


def message(body: Any, tenant: str = "") -> bytes:
    errands = {"fair": tenant} if tenant else {}
    return json.dumps(
        {
            "body": json.dumps(body), "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"id": str(body), "errands": errands},
            "properties": {"delivery_info": {"exchange": "", "routing_key": QUEUE}, "delivery_tag": "t"},
        }
    ).encode()  # fmt: skip


def put(live: LiveRuns, tenant: str, *bodies: Any, priority: int | None = None, wait: float = 0) -> None:
    """Messages of a tenant, put in one call; those of nobody are as a plain producer puts them."""
    live.commit(
        [
            live.putting(
                None, run_id=str(body), queue=QUEUE, priority=priority, message=message(body, tenant),
                tenant=tenant, wait=wait,
            )
            for body in bodies
        ],
        patience=30,
    )  # fmt: skip


def names(tenant: str, count: int) -> list[str]:
    return [f"{tenant}{number}" for number in range(count)]


def read(
    broker: Broker, count: int, reader: str = "r", in_line: int | None = None, queue: str = QUEUE
) -> Any:
    """What the script hands out, acknowledged at once, and whether tenants stand in line."""
    reply: Any = READ.run(
        broker.client, broker.keys.prefix, reader, count, count if in_line is None else in_line,
        "high,normal,low", 10_000, 1, queue, 0,
    )  # fmt: skip
    found = []
    for stream, entries in reply[0]:
        for entry, fields in entries:
            found.append(json.loads(json.loads(fields[1])["body"]))
            broker.client.xack(stream, "workers", entry)
            broker.client.xdel(stream, entry)
    return found, bool(reply[3])


def all_of(broker: Broker, count: int = 1) -> list[str]:
    found: list[str] = []
    while bodies := read(broker, count)[0]:
        found += bodies
    return found


def left(broker: Broker) -> list[str]:
    return [key for key in all_keys(broker.keys, QUEUE) if key not in streams_of(broker.keys, QUEUE)
            and broker.client.exists(key)]  # fmt: skip


def test_a_small_tenant_goes_ahead_of_a_large_ones_backlog(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 500))
    read(broker, 100)
    put(live, "b", *names("b", 10))
    found, in_line = read(broker, 10)
    assert found == names("b", 10), "ten of one who asked for nothing before"
    assert in_line


def test_tenants_take_turns(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 100))
    put(live, "b", *names("b", 60))
    put(live, "c", *names("c", 60))
    found = all_of(broker)
    assert [body for body in found if body[0] == "a"] == names("a", 100), "each in its own order"
    assert [body for body in found if body[0] == "b"] == names("b", 60)
    turns = "".join(body[0] for body in found[16:])  # before: those that were there when nobody else was
    assert set(turns[:3]) == {"a", "b", "c"}
    assert {turns[3 * n : 3 * n + 3].count("a") for n in range(50)} == {1}
    assert turns[-24:] == "a" * 24


def test_who_comes_back_again_and_again_has_no_more_than_its_turns(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 400))
    read(broker, 16)
    taken: list[str] = []
    for number in range(200):
        put(live, "b", f"b{number}")
        taken += read(broker, 1)[0]
    share = sum(body.startswith("b") for body in taken)
    assert 95 <= share <= 110, "every second one, and the ten of a newcomer"


def test_all_messages_without_a_tenant_are_one(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 80))
    put(live, "", *names("p", 80))
    found = "".join(body[0] for body in all_of(broker)[16:])
    assert found.count("p") == 80
    assert found[10:110].count("p") in range(40, 62), "about half, ten ahead"


def test_a_stream_full_of_others_does_not_hold_tenants_up(broker: Broker, live: LiveRuns) -> None:
    put(live, "", *names("p", 300))
    put(live, "a", *names("a", 10))
    assert read(broker, 30)[0].count("a9") == 1


def test_levels_have_lines_of_their_own(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 50), priority=9)
    put(live, "b", *names("b", 50), priority=1)
    put(live, "b", *names("h", 50), priority=9)
    found = "".join(body[0] for body in all_of(broker))
    assert found.rstrip("b").count("b") == 0, "all that is high before all that is low"
    assert set(found[16:20]) == {"a", "h"}


def test_what_is_read_leaves_nothing_behind(broker: Broker, live: LiveRuns) -> None:
    for tenant in range(300):
        put(live, f"t{tenant}", *[f"t{tenant}-{n}" for n in range(3)])
    assert len(left(broker)) == 3
    assert len(all_of(broker, 7)) == 900
    assert left(broker) == []
    assert broker.depth() == queues.QueueDepth(0, None)


def test_tenants_are_forgotten_as_the_clock_goes_on(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 3000))
    for tenant in range(500):
        put(live, f"t{tenant}", f"t{tenant}")
    while "a1000" not in read(broker, 20)[0]:
        pass
    tenants = broker.keys.line(QUEUE, "normal") + ":tenants"
    assert broker.client.zcard(tenants) <= 2


def test_depth_and_age_count_the_line(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 100))
    depth = broker.depth()
    assert (depth.depth, depth.held) == (100, 0)
    assert depth.oldest_s is not None
    read(broker, 16)
    assert broker.depth().depth == 84
    assert broker.depth().oldest_s is not None, "though no stream of the group has any"


def test_a_purge_takes_the_line_along(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 100))
    put(live, "b", *names("b", 5), wait=3600)
    assert queues.purge(broker.client, broker.keys, QUEUE) == 105
    assert broker.depth() == queues.QueueDepth(0, None)
    assert left(broker) == []


def test_a_paused_queue_keeps_its_line(broker: Broker, live: LiveRuns) -> None:
    put(live, "a", *names("a", 100))
    pause.pause(broker.client, broker.keys, QUEUE)
    assert read(broker, 10) == ([], False)
    pause.resume(broker.client, broker.keys, QUEUE)
    assert read(broker, 10)[0] == names("a", 10)


def test_who_holds_enough_is_given_nothing_where_tenants_stand_in_line(
    broker: Broker, live: LiveRuns
) -> None:
    put(live, "a", *names("a", 100))
    assert read(broker, 50, in_line=0) == ([], True)
    assert len(read(broker, 50, in_line=5)[0]) == 5
    all_of(broker, 100)
    put(live, "", *names("p", 10))
    assert read(broker, 50, in_line=0) == (names("p", 10), False)


def test_a_delayed_message_goes_into_its_tenants_line(broker: Broker, live: LiveRuns) -> None:
    connection = broker.connect()
    put(live, "a", *names("a", 200))
    put(live, "b", *names("b", 5), wait=0.3)
    assert broker.depth().delayed == 5
    with broker.consuming(connection, prefetch=1) as found:
        seen: list[str] = []
        while "b4" not in seen:
            (one,) = drain(connection, found, 1)
            seen.append(one.payload)
            found.clear()
            if broker.depth().delayed == 0 and "moved" not in seen:
                seen.append("moved")
            one.ack()
        after = seen[seen.index("moved") :]
        assert len(after) <= 12, "ahead of what the other tenant has in line"
    connection.release()


def test_an_idle_consumer_is_woken(broker: Broker, live: LiveRuns) -> None:
    connection = broker.connect()
    with broker.consuming(connection) as found:
        nothing_comes(connection, found)
        put(live, "a", *names("a", 100))
        drain(connection, found, 100)
        assert [one.payload for one in found] == names("a", 100)
        for one in found:
            one.ack()


def test_a_dead_workers_messages_go_first(broker: Broker, live: LiveRuns) -> None:
    connection = broker.connect()
    put(live, "a", *names("a", 50))
    reply: Any = READ.run(
        broker.client, broker.keys.prefix, "dead", 20, 20, "high,normal,low", 10_000, 1, QUEUE, 0
    )
    assert sum(len(entries) for _, entries in reply[0]) == 20
    assert (broker.depth().depth, broker.depth().held) == (30, 20)
    broker.client.delete(broker.keys.lease("dead"))
    broker.allow_rescue()
    with broker.consuming(connection) as found:
        drain(connection, found, 50)
        assert sorted(one.payload for one in found) == sorted(names("a", 50)), "each once"
        for one in found:
            one.ack()


def test_a_hundred_thousand_tenants(broker: Broker, live: LiveRuns) -> None:
    """What a read costs the server does not grow with them."""
    put(live, "big", *names("big", 20))
    with broker.client.pipeline(transaction=False) as pipe:
        line = broker.keys.line(QUEUE, "normal")
        for tenant in range(100_000):
            pipe.zadd(f"{line}:turns", {f"1-{tenant}": tenant - 5})
            pipe.zadd(f"{line}:tenants", {f"t{tenant}": tenant - 5})
        pipe.execute()
    broker.client.config_resetstat()
    read(broker, 100)
    told: Any = broker.client.info("commandstats")
    calls = sum(stat["calls"] for name, stat in told.items() if "config" not in name)
    assert calls < 100 * 5


def test_a_server_that_is_full_hands_out_what_stands_in_line(valkey_url: str, key_prefix: str) -> None:
    broker = Broker(valkey_url, key_prefix)
    live = LiveRuns(Clients(broker.url), broker.keys)
    put(live, "a", *names("a", 60))
    read(broker, 1)
    before = broker.client.config_get("maxmemory")["maxmemory"]
    broker.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            put(live, "b", "b")
        found = all_of(broker, 7)
    finally:
        broker.client.config_set("maxmemory", before)
    assert found == names("a", 60)[1:]
    broker.close()


def test_what_celery_sends_takes_its_turn_as_well(broker: Broker, live: LiveRuns) -> None:
    connection: Connection = broker.connect()
    put(live, "a", *names("a", 100))
    broker.send("b", connection=connection, headers={"id": "b", "errands": {"fair": "b"}})
    assert broker.depth().depth == 101
    assert broker.client.zscore(broker.keys.line(QUEUE, "normal") + ":tenants", "b") is not None
    assert len(broker.receive(connection, 101)) == 101
