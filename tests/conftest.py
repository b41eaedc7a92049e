"""Fixtures for servers and databases, shared by the whole suite.

- `database`: an empty ledger of the test's own, on SQLite and, where one answers, on PostgreSQL.
- `sqlite_database`: the same on SQLite alone, for what does not depend on the kind of database.
- `empty_database`: without tables, for what tests migrations.
- `valkey_url`, `key_prefix`: an embedded Valkey, emptied for each test.
- `redis_url`, `rabbitmq_url`: servers of the machine, where they answer; else the test is skipped.

The last lines of a run say which of these it ran on.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import _state
from celery.app import builtins as _celerys_own_tasks  # noqa: F401 - they are to stay
from sqlalchemy import URL

from errands.doors.local.valkey import EmbeddedValkey
from errands.store.engine import Database

sys.path.insert(0, str(Path(__file__).parent))
import servers

_USED = "errands server"
_used: Counter[str] = Counter()

_KINDS = ["sqlite"] + (["postgresql"] if servers.postgres() else [])


def _use(request: pytest.FixtureRequest, label: str) -> None:
    request.node.user_properties.append((_USED, label))


@pytest.fixture(autouse=True)
def _shared_tasks_stay_in_their_test() -> Iterator[None]:
    """A plain Celery app's tasks, and `@shared_task`'s, join every app that is finalised after them."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(before)


# -- databases


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="session")
def _postgres_template() -> Iterator[URL]:
    servers.drop_left_databases()
    url = servers.create_database()
    database = Database(url)
    database.upgrade()
    database.dispose()
    yield url
    servers.drop_database(url)


def _close(database: Database) -> None:
    database.dispose()
    loops = [loop for loop in database._async_engines if not loop.is_closed() and not loop.is_running()]
    for loop in loops:
        loop.run_until_complete(database._async_engines[loop].dispose())


@pytest.fixture
def sqlite_database(
    request: pytest.FixtureRequest, tmp_path: Path, _sqlite_template: Path
) -> Iterator[Database]:
    """A migrated, empty SQLite file."""
    _use(request, servers.SQLITE)
    path = tmp_path / "errands.db"
    shutil.copy(_sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    _close(database)


@pytest.fixture
def postgres_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated, empty PostgreSQL database."""
    server = servers.postgres()
    if server is None:
        pytest.skip("no PostgreSQL answers; set ERRANDS_TEST_POSTGRES_URL")
    _use(request, server.label)
    template: URL = request.getfixturevalue("_postgres_template")
    url = servers.create_database(template.database)
    database = Database(url)
    yield database
    _close(database)
    servers.drop_database(url)


@pytest.fixture(params=_KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated, empty database of each kind."""
    kind = "postgres_database" if request.param == "postgresql" else "sqlite_database"
    found: Database = request.getfixturevalue(kind)
    return found


@pytest.fixture(params=_KINDS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of each kind, without tables."""
    if request.param == "sqlite":
        _use(request, servers.SQLITE)
        (tmp_path / "empty").mkdir()
        database = Database(f"sqlite:///{tmp_path / 'empty' / 'errands.db'}")
        yield database
        _close(database)
    else:
        server = servers.postgres()
        assert server is not None
        _use(request, server.label)
        url = servers.create_database()
        database = Database(url)
        yield database
        _close(database)
        servers.drop_database(url)


# -- Valkey, Redis, RabbitMQ


@pytest.fixture(scope="session")
def _valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def _valkey_label(_valkey_server: EmbeddedValkey) -> str:
    with redis.Redis.from_url(_valkey_server.url) as client:
        info: Any = client.info("server")
    version = info.get("valkey_version")
    return f"embedded Valkey {version}" if version else f"embedded Redis {info['redis_version']}"


@pytest.fixture
def valkey_url(
    request: pytest.FixtureRequest, _valkey_server: EmbeddedValkey, _valkey_label: str
) -> Iterator[str]:
    """The address of an embedded Valkey that is empty, and is this test's alone."""
    _use(request, _valkey_label)
    _valkey_server.start()
    with redis.Redis.from_url(_valkey_server.url) as client:
        client.flushall()
        yield _valkey_server.url
        if _valkey_server.answers():
            client.flushall()


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[redis.Redis]:
    """A client of the embedded Valkey."""
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def key_prefix() -> str:
    """A prefix for keys and queue names that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}:"


@pytest.fixture(scope="session")
def _claimed_redis() -> Iterator[tuple[str, redis.Redis] | None]:
    claimed = servers.claim_redis()
    yield claimed
    if claimed is not None:
        claimed[1].flushdb()
        claimed[1].close()


@pytest.fixture
def redis_url(
    request: pytest.FixtureRequest, _claimed_redis: tuple[str, redis.Redis] | None
) -> Iterator[str]:
    """A stock Redis: a numbered database that was empty, and is emptied again."""
    server = servers.stock_redis()
    if server is None or _claimed_redis is None:
        pytest.skip("no Redis answers, or it has no empty database; set ERRANDS_TEST_REDIS_URL")
    _use(request, server.label)
    url, client = _claimed_redis
    yield url
    for key in client.scan_iter(count=1000):
        if key != b"errands:test:claim":
            client.delete(key)


@pytest.fixture
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """A RabbitMQ. Others use it too: name queues by `key_prefix`, and delete them or let them expire."""
    server = servers.rabbitmq()
    if server is None:
        pytest.skip("no RabbitMQ answers; set ERRANDS_TEST_RABBITMQ_URL")
    _use(request, server.label)
    return server.url


# -- what the run ran on


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.outcome != "skipped":
        _used.update({label for name, label in report.user_properties if name == _USED})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("servers", sep="-")
    for label, count in sorted(_used.items()):
        terminalreporter.write_line(f"ran on {label}: {count} tests")
    names = {"PostgreSQL": servers.postgres, "Redis": servers.stock_redis, "RabbitMQ": servers.rabbitmq}
    for name, probe in names.items():
        if any(label.startswith(name) for label in _used):
            continue
        server = probe()
        terminalreporter.write_line(
            f"not on {name}: no test that was chosen uses it" if server else f"not on {name}: none answers"
        )
