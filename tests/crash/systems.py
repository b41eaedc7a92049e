"""The systems that the faults are put to: how each is started, and what it says of its runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import redis
from sqlalchemy import select
from tests.crash.checker import Final, Move

from errands import Errands, Keyring, Settings, State
from errands.broker.events import START, EventStream
from errands.core.events import Event, Kind
from errands.store.tables import dead_letters, position, runs

_CHUNK = 500
_UNKNOWN_SECONDS = 15  # that a message waits for a worker that knows its task; ten minutes otherwise
_CELERYS = {
    "SUCCESS": State.SUCCEEDED, "FAILURE": State.FAILED, "REVOKED": State.REVOKED, "STARTED": State.RUNNING,
    "RETRY": State.RETRYING,
}  # fmt: skip


class System(Protocol):
    """A system under test, on one server and in one folder."""

    label: str
    app: str  # MODULE:APP
    task: str  # the name of its task that works for a while and has an effect
    beat: bool  # whether it needs a beat for its record
    holding: tuple[bytes, ...]  # how the keys begin under which it keeps messages

    def environment(self, url: str) -> dict[str, str]:
        """What its processes are told; `url` is where they find the broker."""

    def worker(self, name: str, concurrency: int, queues: list[str]) -> list[str]:
        """The arguments of Python for a worker."""

    def beat_command(self, number: int) -> list[str]:
        """The arguments of Python for a beat."""

    def put_raw(self, data: bytes) -> None:
        """Put bytes into the queue that no producer would."""

    def final(self, accepted: Iterable[str]) -> Final:
        """What it says of these runs, and of all moves it made, now."""

    def dead(self) -> Collection[str]:
        """Runs that it keeps as dead letters."""

    def settled(self, accepted: Iterable[str]) -> bool:
        """Whether it has said its last word on these runs, its record included."""

    def close(self) -> None:
        """Let go of what was opened to ask it."""


class StockCelery:
    """Celery as its documentation sets it up best for Redis: late acknowledgement, nothing given up.

    Args:
        url: the server.
        folder: for its files.
        visibility: seconds after which a message that was not acknowledged is given to another worker. By
            default Celery waits an hour; runs that are to end need less.
    """

    task = "mark"
    app = "tests.crash.app_celery:app"
    beat = False
    holding = (b"work", b"poison", b"unacked")

    def __init__(self, url: str, folder: Path, visibility: int = 20) -> None:
        self.label = f"Celery, visibility timeout {visibility} s"
        self._folder = folder
        self._visibility = visibility
        self._client: Any = redis.Redis.from_url(url)

    def environment(self, url: str) -> dict[str, str]:
        return {"CRASH_BROKER_URL": url, "CRASH_VISIBILITY": str(self._visibility)}

    def worker(self, name: str, concurrency: int, queues: list[str]) -> list[str]:
        return [
            "-m", "celery", "-A", self.app, "worker", "-n", f"{name}@crash", "-c", str(concurrency),
            "-Q", ",".join(queues), "-l", "INFO",
        ]  # fmt: skip

    def beat_command(self, number: int) -> list[str]:
        schedule = str(self._folder / f"schedule-{number}")
        return ["-m", "celery", "-A", self.app, "beat", "--pidfile", "", "-s", schedule, "-l", "INFO"]

    def put_raw(self, data: bytes) -> None:
        self._client.lpush("work", data)

    def final(self, accepted: Iterable[str]) -> Final:
        import json

        states = {}
        for chunk in _chunks(accepted):
            found = self._client.mget([f"celery-task-meta-{run}" for run in chunk])
            for run, raw in zip(chunk, found, strict=True):
                if raw and (state := _CELERYS.get(json.loads(raw)["status"])):
                    states[run] = state
        return Final(states)

    def dead(self) -> Collection[str]:
        return ()

    def settled(self, accepted: Iterable[str]) -> bool:
        states = self.final(accepted := list(accepted)).states
        return all(run in states and states[run].final for run in accepted)

    def close(self) -> None:
        self._client.close()


class ErrandsSystem:
    """Errands with its defaults.

    Args:
        url: the server.
        folder: for its files; the ledger is an SQLite file there.
        pool: `asyncio` or `prefork`.
    """

    app = "tests.crash.app_errands:app"
    beat = True
    holding = (b"errands:q:",)

    def __init__(self, url: str, folder: Path, pool: str = "asyncio") -> None:
        self.label = f"Errands, {pool}"
        self.task = "amark" if pool == "asyncio" else "mark"
        self._pool = pool
        self._folder = folder
        self._url = url
        self._key = Keyring.new_key()
        self._moves: list[Move] = []
        self._dead: set[str] = set()
        self._read = START

    @cached_property
    def observer(self) -> Errands:
        """An app of the same settings, in this process, to ask."""
        return Errands("crash-observer", settings=Settings(
            broker_url=self._url, result_url=self._url, valkey_url=self._url, database_url=self._database_url,
            home=self._folder,
        ))  # fmt: skip

    @cached_property
    def _stream(self) -> EventStream:
        return EventStream(self.observer.valkey, self.observer.keys.events)

    @property
    def _database_url(self) -> str:
        return f"sqlite:///{self._folder / 'ledger.db'}"

    def environment(self, url: str) -> dict[str, str]:
        return {
            "ERRANDS_HOME": str(self._folder), "ERRANDS_BROKER_URL": url, "ERRANDS_RESULT_URL": url,
            "ERRANDS_VALKEY_URL": url, "ERRANDS_DATABASE_URL": self._database_url,
            "ERRANDS_SECRET_KEYS": self._key, "ERRANDS_UNKNOWN_TASK_PATIENCE": str(_UNKNOWN_SECONDS),
        }  # fmt: skip

    def worker(self, name: str, concurrency: int, queues: list[str]) -> list[str]:
        return [
            "-m", "errands", "worker", "--app", self.app, "--name", name, "--concurrency", str(concurrency),
            "--queues", ",".join(queues), "--pool", self._pool,
        ]  # fmt: skip

    def beat_command(self, number: int) -> list[str]:
        return ["-m", "errands", "beat", "--app", self.app]

    def put_raw(self, data: bytes) -> None:
        self.observer.valkey.xadd(f"{self.observer.keys.prefix}q:work:normal", {"m": data})

    def follow(self) -> None:
        """Read what the system told since the last time, before its beat throws it away."""
        while entries := self._stream.read(self._read, 1000):
            for entry_id, event, _ in entries:
                self._read = entry_id
                if event is not None:
                    self._note(event)

    def _note(self, event: Event) -> None:
        if event.kind is Kind.DEAD_LETTER:
            self._dead.add(event.run_id)
        elif event.state is not None:
            reopened = event.kind is Kind.REOPENED
            self._moves.append(Move(event.run_id, event.state, event.attempt or 0, reopened))

    def final(self, accepted: Iterable[str]) -> Final:
        accepted = list(accepted)
        self.follow()
        live = self._live(accepted)
        mine = set(accepted)
        return Final(
            states=live,
            dead=self.dead(),
            recorded=self._recorded(accepted),
            moves=[move for move in self._moves if move.run in mine],
        )

    def dead(self) -> Collection[str]:
        with self.observer.database.reading() as connection:
            return self._dead | set(connection.scalars(select(dead_letters.c.run_id)))

    def settled(self, accepted: Iterable[str]) -> bool:
        accepted = list(accepted)
        with self.observer.database.reading() as connection:
            read = connection.scalar(select(position.c.entry_id)) or START
        if self._stream.behind(read)[0]:
            return False
        return all(state.final for state in self._live(accepted).values())

    def close(self) -> None:
        self.observer.database.dispose()
        self.observer.close()

    def _live(self, accepted: list[str]) -> dict[str, State]:
        found: dict[str, State] = {}
        for chunk in _chunks(accepted):
            found |= {run: live.state for run, live in self.observer.live.get_many(chunk).items()}
        return found

    def _recorded(self, accepted: list[str]) -> dict[str, State]:
        found: dict[str, State] = {}
        with self.observer.database.reading() as connection:
            for chunk in _chunks(accepted):
                query = select(runs.c.id, runs.c.state).where(runs.c.id.in_(chunk))
                found |= {run: State(state) for run, state in connection.execute(query)}
        return found


def _chunks(items: Iterable[str]) -> Iterable[list[str]]:
    rows = list(items)
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


SYSTEMS: dict[str, Callable[[str, Path], System]] = {
    "asyncio": ErrandsSystem,
    "prefork": partial(ErrandsSystem, pool="prefork"),
    "celery": StockCelery,
}
