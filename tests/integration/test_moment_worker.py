"""An idle worker begins a run that it is given in the moment of its sending, and asks for any other."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hiredis import pack_command

from errands import State
from errands.broker.line import Line
from errands.doors.local.valkey import EmbeddedValkey
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from errands.sending.membership import collected
from processes import until
from work_rig import Work, working

ROOT = Person("root", frozenset({ADMIN}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def work(server: EmbeddedValkey, tmp_path: Path) -> Iterator[Work]:
    with working("asyncio", server.url, tmp_path) as found:
        found.start()
        found.ended(found.send("clocked"))  # whatever is done for the first time only is done
        yield found


def waiting(client: redis.Redis, command: str) -> bool:
    """Whether a client waits for the server to go on with such a command."""
    clients: Any = client.client_list()
    return any("b" in each["flags"] and each["cmd"] == command for each in clients)


def send_and_stop_writing(work: Work, url: str, **options: Any) -> str:
    """Send a run to a worker that waits; whatever anybody wants to write from then on waits."""
    until(lambda: waiting(work.app.valkey, "xreadgroup"), what="the worker waits for a message")
    calls: list[Any] = []
    token = collected.set(calls)
    try:
        run_id = work.send("clocked", **options)
    finally:
        collected.reset(token)
    script, [call] = work.app._live_runs._script, calls
    at_once = script.transaction([call.operation])
    if at_once is None:
        at_once, count = pack_command(tuple(script.command([call.operation], whole=True))), 1
    else:
        count = 6
    stop = pack_command(("CLIENT", "PAUSE", 60_000, "WRITE"))
    answers = Line(url, 5.0).send_packed(at_once + stop, count + 1).receive_all()
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    return run_id


def began(work: Work) -> list[str]:
    return work.words("clocked")


def test_a_new_run_begins_before_the_server_has_heard_of_it(work: Work, server: EmbeddedValkey) -> None:
    run_id = send_and_stop_writing(work, server.url)
    until(lambda: run_id in began(work), what="it begins")
    until(lambda: waiting(work.app.valkey, "evalsha"), what="the server has the word of its start")
    assert work.run(run_id).state is State.QUEUED
    work.app.valkey.client_unpause()
    run = work.ended(run_id)
    assert (run.state, run.attempt) == (State.SUCCEEDED, 1)
    assert began(work).count(run_id) == 1


def test_a_run_with_an_id_of_the_callers_is_asked_for(work: Work, server: EmbeddedValkey) -> None:
    """Somebody may have sent it before."""
    run_id = send_and_stop_writing(work, server.url, task_id="mine")
    until(lambda: waiting(work.app.valkey, "evalsha"), what="the worker asks whether it may start")
    assert run_id not in began(work)
    work.app.valkey.client_unpause()
    assert work.ended(run_id).state is State.SUCCEEDED
    assert began(work).count(run_id) == 1


def test_where_messages_are_signed_it_is_asked(
    server: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good message may have been copied, mark and all, by somebody who can write into the queue."""
    monkeypatch.setenv("ERRANDS_SIGNING_KEYS", f"s1:{base64.urlsafe_b64encode(bytes(32)).decode()}")
    with working("asyncio", server.url, tmp_path) as work:
        work.start()
        work.ended(work.send("clocked"))
        run_id = send_and_stop_writing(work, server.url)
        until(lambda: waiting(work.app.valkey, "evalsha"), what="the worker asks whether it may start")
        assert run_id not in began(work)
        work.app.valkey.client_unpause()
        assert work.ended(run_id).state is State.SUCCEEDED


def test_what_was_revoked_in_the_moment_of_its_sending_does_not_begin(work: Work) -> None:
    """The worker has its message, and stands still meanwhile."""
    sent = []
    for _ in range(5):
        until(lambda: waiting(work.app.valkey, "xreadgroup"), what="the worker waits for a message")
        work.workers[0].process.send_signal(signal.SIGSTOP)
        sent.append(work.send("clocked"))
        Actions(work.app).revoke(ROOT, sent[-1])
        work.workers[0].process.send_signal(signal.SIGCONT)
        until(lambda: not work.app.valkey.xlen(work.app.keys.stream("work", "normal")), what="it is settled")
    work.ended(work.send("clocked"))
    assert set(sent).isdisjoint(began(work))
    assert {work.run(run_id).state for run_id in sent} == {State.REVOKED}
