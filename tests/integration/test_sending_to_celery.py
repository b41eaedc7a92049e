"""A plain Celery worker, on kombu's own Redis transport, runs what we wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain
from kombu.utils.json import loads

from errands import Errands, Settings
from processes import Worker, until


@pytest.fixture
def worker(tmp_path: Path, valkey_url: str) -> Iterator[Worker]:
    worker = Worker(
        {"PLAIN_BROKER": valkey_url}, tmp_path / "plain.log", "-P", "solo", app="plain_app:app"
    ).wait_until_ready()
    yield worker
    worker.kill()


def test_a_plain_worker_takes_our_messages(
    worker: Worker, tmp_path: Path, valkey_url: str, key_prefix: str, valkey: redis.Redis
) -> None:
    settings = Settings(home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix)
    app = Errands("ours", settings=settings, set_as_current=False)

    @app.task(name="describe")
    def describe(name: str, more: Any = None) -> Any: ...

    @app.task(name="double")
    def double(result: Any) -> Any: ...

    def hand_over() -> None:
        """What lies in our stream, into the list that the plain worker reads."""
        stream = f"{key_prefix}q:celery:normal"
        entries: Any = valkey.xrange(stream)
        for _, fields in entries:
            valkey.lpush("celery", fields[b"m"])
        valkey.delete(stream)

    plain = Celery("reader", broker=valkey_url, backend=valkey_url, set_as_current=False)
    sent = describe.apply_async(
        ("grüße 世界",), {"more": {"deep": [1.5, None]}}, headers={"tenant": "7"}, time_limit=60,
        soft_time_limit=50, retries=2, eta="2020-01-01T00:00:00+00:00",
    )  # fmt: skip
    followed = chain(describe.s("twice").set(headers={"tenant": "8"}), double.s()).apply_async()
    hand_over()
    told = plain.AsyncResult(sent.id).get(timeout=30)
    assert told == {
        "args": ["grüße 世界"], "kwargs": {"more": {"deep": [1.5, None]}}, "id": sent.id, "root": sent.id,
        "eta": "2020-01-01T00:00:00+00:00", "retries": 2, "limits": [60, 50], "mine": "7",
    }  # fmt: skip
    # Its worker sends what follows, through kombu, in the way that was written into our message.
    assert plain.AsyncResult(followed.id).get(timeout=30) == ["twice", "twice"]
    unacked: Any = valkey.hvals("unacked")
    until(lambda: not valkey.hlen("unacked"), what=f"all is acknowledged: {[loads(raw) for raw in unacked]}")
