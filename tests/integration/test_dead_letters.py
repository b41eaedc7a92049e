"""Dead letters over HTTP and the command line: found, sent again, thrown away; with real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import func, select
from typer.testing import CliRunner

from errands import Keyring, State
from errands.core.events import Event, Kind
from errands.core.signing import Signer
from errands.doors.cli.program import cli
from errands.store import tables
from errands.store.engine import Database
from ops_app import ANN, ROOT, record
from people import KEY, Rig, rig_on
from processes import until


@pytest.fixture
def rig(sqlite_database: Database, valkey_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig_on(sqlite_database, valkey_url, tmp_path) as rig:
        yield rig


@pytest.fixture
def rig_on_each(database: Database, valkey_url: str, tmp_path: Path) -> Iterator[Rig]:
    """On each kind of database."""
    with rig_on(database, valkey_url, tmp_path) as rig:
        yield rig


def bury(rig: Rig, count: int, reason: str = "mended by now", task: str = "plain") -> list[str]:
    """Failed runs with a dead letter each."""
    ids = []
    for n in range(count):
        run_id = rig.app.new_id()
        about: dict[str, Any] = {
            "run_id": run_id,
            "at": 1_700_000_000.0 + n,
            "task": task,
            "queue": rig.queue,
        }
        message = {"task": task, "args": [f"text {n}"], "kwargs": {}}
        rig.app.live.record(Event(kind=Kind.QUEUED, args=message["args"], kwargs={}, **about))
        rig.app.live.record(Event(kind=Kind.FAILED, error={"type": "X", "message": reason}, **about))
        rig.app.live.record(Event(kind=Kind.DEAD_LETTER, note=reason, message=message, **about))
        ids.append(run_id)
    record(rig.app)
    return ids


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_a_run_whose_tries_are_used_up_is_kept_and_goes_on_when_it_is_replayed(rig: Rig, pool: str) -> None:
    with rig.working(pool):
        run = rig.app.tasks["charge"].delay(7, "4711-0815-4711")
        rig.ends(run.id, State.FAILED)
        letter = rig.letter_of(run.id)
        assert letter["reason"] == (
            "its 3 tries are used up: ConnectionError: the bank does not take *** of user 7"
        )
        assert letter["message"] == {"task": "charge", "args": [7, "***"], "kwargs": {}}
        assert rig.effects() == ["charge 7"] * 3

        (rig.folder / "mended").touch()
        assert (
            rig.post(f"/api/dead-letters/{letter['id']}/replay", reason="the bank is back").status_code == 202
        )
        rig.ends(run.id, State.SUCCEEDED)
        again = rig.post(f"/api/dead-letters/{letter['id']}/replay")
        assert again.status_code == 409
    assert rig.effects() == ["charge 7"] * 4
    assert len(rig.audit("replay")) == 1


def test_a_run_that_has_one_try_has_simply_failed(rig: Rig) -> None:
    with rig.working():
        failed = rig.app.tasks["once"].delay("no second try")
        rig.ends(failed.id, State.FAILED)
    assert rig.letters() == []


def test_a_retry_by_hand_counts_as_a_replay_and_a_success_is_not_undone(rig: Rig) -> None:
    run_id, *_ = bury(rig, 1)
    with rig.working():
        assert rig.post(f"/api/tasks/{run_id}/retry").status_code == 202
        rig.ends(run_id, State.SUCCEEDED)
    letter = rig.letter_of(run_id)
    assert letter["replayed_at"] is not None
    message = {"task": "plain", "args": ["told late"], "kwargs": {}}
    late = Event(kind=Kind.DEAD_LETTER, run_id=run_id, at=1_700_000_100.0, task="plain", message=message)
    rig.app.live.record(late)
    (second,) = rig.letters(replayed=False)
    answer = rig.post(f"/api/dead-letters/{second['id']}/replay")
    assert (answer.status_code, "has succeeded since" in answer.json()["detail"]) == (409, True)


def test_all_that_match_are_sent_again_page_by_page(rig_on_each: Rig) -> None:
    rig = rig_on_each
    mended, other = bury(rig, 7), bury(rig, 2, "something else")
    dry = rig.post("/api/dead-letters/replay", match={"reason": "MENDED"}, dry_run=True).json()
    assert (dry["matched"], dry["replayed"]) == (7, 0)
    with rig.working():
        first = rig.post("/api/dead-letters/replay", match={"reason": "mended"}, limit=5).json()
        assert (first["matched"], first["replayed"], first["refused"]) == (7, 5, [])
        second = rig.post(
            "/api/dead-letters/replay", match={"reason": "mended"}, limit=5, after=first["after"]
        ).json()
        assert (second["matched"], second["replayed"], second["after"]) == (2, 2, None)
        for run_id in mended:
            rig.ends(run_id, State.SUCCEEDED)
    assert rig.post("/api/dead-letters/replay", match={"reason": "mended"}).json()["matched"] == 0
    assert {letter["task_id"] for letter in rig.letters(replayed=False)} == set(other)
    assert len(rig.audit("replay")) == 7


def test_what_cannot_be_sent_again_is_told_and_does_not_hold_up_the_rest(rig: Rig) -> None:
    (unknown,), (good,) = bury(rig, 1, task="of-an-older-version"), bury(rig, 1)
    answer = rig.post("/api/dead-letters/replay").json()
    assert answer["replayed"] == 1
    assert "no task is registered" in answer["refused"][0]["why"]
    live = rig.app.live.get(good)
    assert live is not None
    assert live.state is State.QUEUED
    assert rig.letter_of(unknown)["replayed_at"] is None


def test_letters_are_found_by_task_queue_reason_and_time(rig_on_each: Rig) -> None:
    rig = rig_on_each
    bury(rig, 3, "100% wrong_arguments")
    bury(rig, 2, "poison", task="once")
    assert len(rig.letters()) == 5
    assert len(rig.letters(task="once")) == 2
    assert len(rig.letters(reason="% Wrong_")) == 3
    assert len(rig.letters(reason="_%")) == 0
    assert len(rig.letters(queue=rig.queue)) == 5
    assert len(rig.letters(queue="other")) == 0
    assert len(rig.letters(since="2023-11-14T22:13:21+00:00")) == 3  # from the second of each
    assert len(rig.letters(until="2023-11-14T22:13:21+00:00")) == 2


def test_letters_are_thrown_away_one_or_all_that_match(rig_on_each: Rig) -> None:
    rig = rig_on_each
    keep, *_ = bury(rig, 1, "keep")
    first, *_ = bury(rig, 4, "throw away")
    letter = rig.letter_of(first)
    assert rig.client.delete(f"/api/dead-letters/{letter['id']}", headers=ROOT).json()["deleted"] == 1
    assert rig.client.delete(f"/api/dead-letters/{letter['id']}", headers=ROOT).status_code == 404
    assert (
        rig.post("/api/dead-letters/delete", match={"reason": "throw"}, dry_run=True).json()["matched"] == 3
    )
    answer = rig.post("/api/dead-letters/delete", match={"reason": "throw"}, reason="tidy").json()
    assert (answer["matched"], answer["deleted"]) == (3, 3)
    assert [each["task_id"] for each in rig.letters()] == [keep]
    (audited,) = rig.audit("delete_dead_letters")
    assert (audited.reason, audited.details["count"]) == ("tidy", 3)


@pytest.mark.parametrize(
    "path", ["/api/dead-letters/replay", "/api/dead-letters/delete", "/api/dead-letters/1-1/replay"]
)
def test_only_admins_may(rig: Rig, path: str) -> None:
    assert rig.client.post(path, headers=ANN, json={}).status_code == 403


def test_a_filter_that_is_misspelt_does_not_match_everything(rig: Rig) -> None:
    bury(rig, 1)
    assert rig.post("/api/dead-letters/delete", match={"tsak": "plain"}).status_code == 422
    assert rig.post("/api/dead-letters/replay", after="nonsense").status_code == 409
    assert len(rig.letters()) == 1


# -- messages that are not trusted


def put(rig: Rig, message: bytes) -> None:
    with redis.Redis.from_url(rig.environment["ERRANDS_BROKER_URL"]) as client:
        client.xadd(rig.app.keys.stream(rig.queue, "normal"), {"m": message})


def test_an_unsigned_run_goes_on_only_when_somebody_vouches_for_it(rig: Rig) -> None:
    """A web process without the key: its run waits, and is neither lost nor run behind anybody's back."""
    signer, rig.app.signer = rig.app.signer, None
    run = rig.app.tasks["plain"].delay("from a web process without the key")
    rig.app.signer, rig.app._plan = signer, None
    with rig.working():
        letter = rig.letter_of(run.id)
        refused = rig.post(f"/api/dead-letters/{letter['id']}/replay")
        assert (refused.status_code, "is not trusted" in refused.json()["detail"]) == (409, True)
        live = rig.app.live.get(run.id)
        assert live is not None
        assert live.state is State.QUEUED
        assert rig.post(f"/api/dead-letters/{letter['id']}/replay", trust=True).status_code == 202
        rig.ends(run.id, State.SUCCEEDED)
    (audited,) = rig.audit("replay")
    assert audited.details["trust"] is True


def test_a_run_whose_key_was_missing_goes_on_once_the_key_is_back(rig: Rig) -> None:
    new = Keyring.new_key("k2")
    old, rig.app.signer = rig.app.signer, Signer.parse(new)
    rig.app._plan = None
    run = rig.app.tasks["plain"].delay("signed with a key that workers do not have")
    rig.app.signer, rig.app._plan = old, None
    with rig.working():
        letter = rig.letter_of(run.id)
        assert "signed with key 'k2'" in letter["reason"]
        assert rig.post(f"/api/dead-letters/{letter['id']}/replay").status_code == 409
        rig.app.signer, rig.app._plan = Signer.parse(f"{KEY},{new}"), None
        assert rig.post(f"/api/dead-letters/{letter['id']}/replay").status_code == 202
        rig.ends(run.id, State.SUCCEEDED)


def test_what_is_no_message_cannot_be_sent_again(rig: Rig) -> None:
    put(rig, b"\x00 no message")
    with rig.working():
        (letter,) = until(rig.letters, what="a dead letter")
    answer = rig.post(f"/api/dead-letters/{letter['id']}/replay", trust=True)
    assert (answer.status_code, "holds no message" in answer.json()["detail"]) == (409, True)


# -- the command line


def run_cli(rig: Rig, *arguments: str, expected: int = 0) -> str:
    from errands.doors.cli import records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "errands_app", lambda reference: rig.app)
        answer = CliRunner().invoke(cli, [*arguments])
    assert answer.exit_code == expected, answer.output
    return answer.output


def test_the_command_line_lists_replays_and_deletes(rig: Rig) -> None:
    bury(rig, 3)
    bury(rig, 1, "something else")
    listed = run_cli(rig, "dead-letters", "list", "--text", "mended")
    assert listed.count("mended by now") == 3
    assert "3 dead letters match" in run_cli(rig, "dead-letters", "replay", "--text", "mended", "--dry-run")
    assert "3 sent again" in run_cli(rig, "dead-letters", "replay", "--text", "mended", "--reason", "mended")
    (left,) = rig.letters(replayed=False)
    assert "1 dead letters match" in run_cli(rig, "dead-letters", "delete", "--text", "else", "--dry-run")
    assert "1 thrown away" in run_cli(rig, "dead-letters", "delete", "--text", "else", "--yes")
    assert run_cli(rig, "dead-letters", "replay", left["id"], expected=1)
    with rig.app.database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.dead_letters)) == 3
    assert {row.actor.partition(":")[0] for row in rig.audit("replay")} == {"cli"}
