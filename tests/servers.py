"""Which servers answer on this machine, found out once per process, and how tests get a corner of them."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import redis
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

POSTGRES_URL = os.environ.get("ERRANDS_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/")
REDIS_URL = os.environ.get("ERRANDS_TEST_REDIS_URL", "redis://127.0.0.1:6379")
RABBITMQ_URL = os.environ.get("ERRANDS_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
SQLITE = f"SQLite {sqlite3.sqlite_version}"

_DATABASE_PREFIX = "errands_test"
_CLAIM_SECONDS = 1800
# Takes a numbered database of a shared Redis, if nobody uses it.
_CLAIM = """
if redis.call('DBSIZE') > 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers: its name with version, and its address."""

    label: str
    url: str


@cache
def postgres() -> Server | None:
    """The PostgreSQL server, if one answers and lets us make databases."""
    try:
        with _postgres_connection() as connection:
            version = connection.scalar(text("SHOW server_version"))
            may = connection.scalar(
                text("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            )
    except (SQLAlchemyError, ImportError):
        return None
    return Server(f"PostgreSQL {str(version).split()[0]}", POSTGRES_URL) if may else None


@cache
def stock_redis() -> Server | None:
    """The Redis server, if one answers without a password."""
    try:
        with redis.Redis.from_url(REDIS_URL, socket_connect_timeout=1, socket_timeout=2) as client:
            return Server(f"Redis {client.info('server')['redis_version']}", REDIS_URL)
    except redis.RedisError:
        return None


@cache
def rabbitmq() -> Server | None:
    """The RabbitMQ server, if something speaks AMQP there."""
    from kombu import Connection

    parts = urlsplit(RABBITMQ_URL)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672), timeout=1).close()
        with Connection(RABBITMQ_URL, connect_timeout=2) as connection:
            connection.connect()
            version = connection.connection.server_properties.get("version", "")
    except Exception:
        return None
    return Server(f"RabbitMQ {version}".strip(), RABBITMQ_URL)


def create_database(template: str | None = None) -> URL:
    """A new PostgreSQL database of our own; a copy of `template` takes some 20 ms."""
    name = f"{_DATABASE_PREFIX}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with _postgres_connection() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}"))
    return make_url(POSTGRES_URL).set(drivername="postgresql", database=name)


def drop_database(url: URL) -> None:
    """End what is still connected to it, and drop it."""
    with _postgres_connection() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)"))


def drop_left_databases() -> None:
    """Drop what test processes left that were killed, if the server is on this machine."""
    if make_url(POSTGRES_URL).host not in {"127.0.0.1", "localhost", "::1"}:
        return
    with _postgres_connection() as connection:
        like = f"{_DATABASE_PREFIX}\\_%"
        names = connection.scalars(
            text("SELECT datname FROM pg_database WHERE datname LIKE :like"), {"like": like}
        )
        for name in list(names):
            if not _lives(int(name.split("_")[2])):
                with suppress(SQLAlchemyError):  # another worker is dropping it
                    connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))


def claim_redis() -> tuple[str, redis.Redis] | None:
    """A numbered database of the shared Redis that is empty, marked as ours, from the highest number down."""
    server = stock_redis()
    if server is None:
        return None
    for number in range(15, 3, -1):
        url = f"{server.url.rstrip('/')}/{number}"
        client = redis.Redis.from_url(url)
        try:
            if client.eval(_CLAIM, 1, "errands:test:claim", os.getpid(), _CLAIM_SECONDS):
                return url, client
        except redis.RedisError:
            pass
        client.close()
    return None


def _postgres_connection():
    url = make_url(POSTGRES_URL).set(drivername="postgresql+psycopg")
    if not url.database:
        url = url.set(database="postgres")
    engine = create_engine(
        url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 2}
    )
    return engine.connect()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def silent_server() -> Iterator[tuple[int, list[socket.socket]]]:
    """Takes connections, and says nothing on them: its port, and the connections it took."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listening.accept()[0])

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        yield listening.getsockname()[1], taken
        listening.shutdown(socket.SHUT_RDWR)
        taker.join()
    for each in taken:
        each.close()
