"""A person is erased: nothing is left of them anywhere, what counts is, and others are unharmed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, inspect, select, text
from typer.testing import CliRunner

from errands import State
from errands.broker import pause
from errands.core import clock
from errands.core.errors import ActionRefused
from errands.core.events import Event, Kind
from errands.doors.cli import records
from errands.doors.cli.program import cli
from errands.ops.access import ADMIN, Person
from errands.ops.erase import Erasing
from errands.store import tables
from errands.store.engine import Database
from errands.store.outbox import OutboxEntry
from ops_app import ANN, ROOT, record
from people import Rig, rig_on
from processes import until

STREET, TEXT = "Elm Street 5", "a letter to Ann"
CARD = "4711-0815-4711"
# The id itself is in the audit trail, which has to show that it was done.
CONTENT = (STREET, TEXT, CARD, "copy of")


@pytest.fixture
def rig(database: Database, valkey_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig_on(database, valkey_url, tmp_path) as rig:
        yield rig


class Beat:
    """Moves events into the ledger, as a beat does, until the block ends."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            record(self._rig.app)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()


def everything(rig: Rig) -> str:
    """All that Valkey and the database hold, as text."""
    found = []
    with redis.Redis.from_url(rig.environment["ERRANDS_BROKER_URL"]) as client:
        for key in client.scan_iter(count=1000):
            kind: Any = client.type(key)
            read: Any = {
                b"string": client.get, b"hash": client.hgetall, b"set": client.smembers,
                b"stream": client.xrange,
                b"zset": lambda key: client.zrange(key, 0, -1),
                b"list": lambda key: client.lrange(key, 0, -1),
            }[kind]  # fmt: skip
            found.append(f"{key!r}: {read(key)!r}")
    engine = create_engine(rig.app.database.url)
    with engine.connect() as connection:
        for table in inspect(engine).get_table_names():
            rows = connection.execute(text(f"SELECT * FROM {table}")).all()
            found += [f"{table}: {row!r}" for row in rows]
    engine.dispose()
    return "\n".join(found)


def rows(rig: Rig) -> dict[str, Any]:
    with rig.app.database.reading() as connection:
        return {row.id: row for row in connection.execute(select(tables.runs))}


def erase(rig: Rig, who: str = "7", **body: Any) -> Any:
    return rig.client.post(f"/api/people/{who}/erase", headers=ROOT, json=body)


def test_nothing_is_left_of_a_person_and_what_counts_is(rig: Rig) -> None:
    app, asked = rig.app, []
    app.on_erase(lambda person, run_ids: asked.append((person, len(run_ids))))
    address = {"street": STREET, "city": "York"}
    with rig.working(), Beat(rig):
        about = app.tasks["letter"].apply_async((7, address, TEXT), owner="somebody")
        other = app.tasks["letter"].apply_async((8, {"street": "Oak Street 1", "city": "York"}, "to Bob"))
        failed = app.tasks["charge"].delay(7, CARD)
        mine = app.tasks["once"].apply_async((TEXT,), owner="7")
        later = app.tasks["plain"].apply_async((TEXT,), owner="7", countdown=3600)
        for run_id, state in (
            (about.id, State.SUCCEEDED), (other.id, State.SUCCEEDED), (failed.id, State.FAILED),
            (mine.id, State.FAILED),
        ):  # fmt: skip
            rig.ends(run_id, state)
        assert other.get(timeout=10) == "to Bob sent to Oak Street 1"
        until(lambda: len(rows(rig)) == 7 and rig.letters(), what="the ledger has all")
        assert all(content in everything(rig) for content in (TEXT, "copy of"))

        dry = erase(rig, dry_run=True).json()
        assert (dry["runs"], dry["revoked"], dry["dry_run"]) == (5, 1, True)
        assert not asked
        answer = erase(rig, reason="asked by letter").json()
    assert (answer["runs"], answer["revoked"], answer["dead_letters"]) == (5, 1, 1)
    assert asked == [("7", 5)]

    left = everything(rig)
    for content in (*CONTENT[:-1], "copy of a letter"):
        assert content not in left, content
    assert "to Bob" in left  # others are unharmed
    found = rows(rig)
    assert len(found) == 7
    for run_id, task, state in (
        (about.id, "letter", "succeeded"), (failed.id, "charge", "failed"), (mine.id, "once", "failed"),
        (later.id, "plain", "revoked"),
    ):  # fmt: skip
        row = found[run_id]
        assert (row.task, row.state, row.owner, row.subject) == (task, state, None, None)
        assert row.created_at is not None
        assert (
            row.args is row.kwargs is row.message is row.result is row.progress is row.error_message is None
        )
    assert found[failed.id].error_type == "ConnectionError"
    assert found[other.id].subject == "8"
    # The answers still work, also where Valkey knows the run.
    seen = rig.client.get(f"/api/tasks/{about.id}", headers=ROOT).json()
    assert (seen["task"], seen["state"], seen["args"], seen["result"]) == ("letter", "succeeded", None, None)
    again = rig.client.post(f"/api/tasks/{about.id}/retry", headers=ROOT)
    assert (again.status_code, "nobody kept" in again.json()["detail"]) == (409, True)
    (audited,) = rig.audit("erase_person")
    assert (audited.target, audited.reason, audited.details["runs"]) == ("7", "asked by letter", 5)
    with Beat(rig):
        assert erase(rig).json()["runs"] == 0


def test_an_old_message_of_an_erased_run_does_not_start_again(rig: Rig) -> None:
    stream = rig.app.keys.stream(rig.queue, "normal")
    run = rig.app.tasks["letter"].delay(7, {"street": STREET, "city": "York"}, TEXT)
    raw: Any = rig.app.valkey.xrange(stream)
    with rig.working(), Beat(rig):
        rig.ends(run.id, State.SUCCEEDED)
        assert erase(rig).json()["runs"] == 2
        rig.app.valkey.xadd(stream, raw[0][1])
        after = rig.app.tasks["plain"].delay("after")
        rig.ends(after.id, State.SUCCEEDED)
        live = rig.app.live.get(run.id)
    assert live is not None
    assert (live.state, live.attempt, live.facts.get("args")) == (State.SUCCEEDED, 1, None)


def test_a_person_whose_run_is_at_work_is_not_erased(rig: Rig) -> None:
    with rig.working(), Beat(rig):
        run = rig.app.tasks["wait"].delay(7, "gate")
        waiting = rig.app.tasks["plain"].apply_async((TEXT,), owner="7", countdown=3600)
        rig.ends(run.id, State.RUNNING)
        until(lambda: len(rows(rig)) == 2)
        answer = erase(rig)
        assert (answer.status_code, run.id in answer.json()["detail"]) == (409, True)
        live = rig.app.live.get(waiting.id)
        assert live is not None
        assert live.state is State.SCHEDULED  # nothing was done
        rig.app.valkey.rpush("gate", "go")
        rig.ends(run.id, State.SUCCEEDED)
        assert erase(rig).json()["runs"] == 2


def test_what_waits_in_a_queue_and_in_the_outbox_goes(rig: Rig) -> None:
    pause.pause(rig.app.valkey, rig.app.keys, rig.queue)
    queued = rig.app.tasks["plain"].apply_async((TEXT,), owner="7")
    with rig.app.database.session() as session:
        about = {"options": {}, "tries": 0, "created_at": clock.now()}
        session.add(OutboxEntry(id="o-1", task="plain", args=[TEXT], kwargs={}, owner="7", **about))
        session.add(OutboxEntry(id="o-2", task="wait", args=[7, TEXT], kwargs={}, owner=None, **about))
        session.add(OutboxEntry(id="o-3", task="wait", args=[8, "other"], kwargs={}, owner="8", **about))
        told = {**about, "options": {"headers": {"errands": {"subject": "7"}}}}  # by the run that sent it
        session.add(OutboxEntry(id="o-4", task="plain", args=[TEXT], kwargs={}, owner=None, **told))
        session.commit()
    with Beat(rig):
        answer = erase(rig).json()
    assert (answer["runs"], answer["revoked"], answer["unsent"]) == (1, 1, 3)
    with rig.app.database.reading() as connection:
        assert [row.id for row in connection.execute(select(tables.outbox))] == ["o-3"]
    pause.resume(rig.app.valkey, rig.app.keys, rig.queue)
    with rig.working():
        until(
            lambda: not rig.app.valkey.xlen(rig.app.keys.stream(rig.queue, "normal")), what="it was dropped"
        )
    live = rig.app.live.get(queued.id)
    assert live is not None
    assert live.state is State.REVOKED
    assert TEXT not in everything(rig)


def test_without_a_ledger_that_knows_all_nothing_is_erased(rig: Rig) -> None:
    """No beat runs: there may be runs that nobody would find."""
    rig.app.tasks["plain"].apply_async((TEXT,), owner="7")
    with pytest.raises(ActionRefused, match="is a beat running"):
        Erasing(rig.app).erase_person(Person("root", frozenset({ADMIN})), "7", patience=0.2)


def test_an_eraser_that_fails_leaves_the_person_to_be_found_again(rig: Rig) -> None:
    calls = []

    def flaky(person: str, run_ids: list[str]) -> None:
        calls.append(list(run_ids))
        if len(calls) == 1:
            raise ConnectionError("the mail archive does not answer")

    rig.app.on_erase(flaky)
    run_id = rig.app.new_id()
    about: dict[str, Any] = {"run_id": run_id, "at": 1_700_000_000.0, "task": "plain", "owner": "7"}
    rig.app.live.record(Event(kind=Kind.QUEUED, args=[TEXT], kwargs={}, **about))
    rig.app.live.record(Event(kind=Kind.SUCCEEDED, result=TEXT, **about))
    with Beat(rig):
        with pytest.raises(ConnectionError):
            erase(rig)
        assert erase(rig).json()["runs"] == 1
    assert calls == [[run_id], [run_id]]
    assert TEXT not in everything(rig)


@pytest.mark.parametrize("who", ["%20" * 300, "a" * 256])
def test_ids_that_nobody_has(rig: Rig, who: str) -> None:
    assert erase(rig, who).status_code == 409


def test_only_admins_erase(rig: Rig) -> None:
    assert rig.client.post("/api/people/ann/erase", headers=ANN, json={}).status_code == 403


def test_the_command_line_erases(rig: Rig) -> None:
    run_id = rig.app.new_id()
    about: dict[str, Any] = {"run_id": run_id, "at": 1_700_000_000.0, "task": "plain", "owner": "7"}
    rig.app.live.record(Event(kind=Kind.SUCCEEDED, result=TEXT, **about))
    with Beat(rig), pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "errands_app", lambda reference: rig.app)
        asked = CliRunner().invoke(cli, ["people", "erase", "7", "--dry-run"])
        assert (asked.exit_code, "1 runs" in asked.output) == (0, True)
        assert TEXT in everything(rig)
        done = CliRunner().invoke(cli, ["people", "erase", "7", "--yes", "--reason", "letter of May 2"])
    assert done.exit_code == 0, done.output
    assert TEXT not in everything(rig)
