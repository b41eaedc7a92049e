"""Fixtures for what is said to the server about runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from errands.broker import leases
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.runs import LiveRuns


@pytest.fixture(params=["valkey_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def live(url: str, key_prefix: str) -> LiveRuns:
    return LiveRuns(Clients(url), Keys(key_prefix))


@pytest.fixture
def server(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


@pytest.fixture
def speak_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Who the process speaks for: a worker's lease, or '' for a producer."""
    return lambda holder: monkeypatch.setattr(leases, "_holder", holder)


@pytest.fixture
def no_worker(speak_as: Callable[[str], None]) -> None:
    """This process is a producer, whatever another test in it was before: a worker's words go another way."""
    speak_as("")
