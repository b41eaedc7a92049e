"""The group commit of a loop, where the server stands still in the middle of it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from errands.broker import leases
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.operations import Result
from errands.broker.runs import LiveRuns, Verdict
from errands.core.events import Event, Kind
from errands.doors.local.valkey import EmbeddedValkey

_LARGE = 32 * 1024 * 1024  # more than a socket takes from who does not read it


async def test_what_a_frozen_server_has_half_read_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub does not wait while it is sent, so that nobody can cut it off in the middle."""
    monkeypatch.setattr(leases, "_holder", "worker/1")
    with EmbeddedValkey(tmp_path / "valkey") as server:
        assert server.process is not None
        live = LiveRuns(Clients(server.url), Keys())
        batch = live.batch_on(asyncio.get_running_loop())
        await batch.submit(live.recording(Event(kind=Kind.STARTED, run_id="a", at=1.0), hop=0))
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            ended = Event(kind=Kind.SUCCEEDED, run_id="a", at=2.0, attempt=1)
            kept = Result("result", 60, "x" * _LARGE)
            answer = batch.collect(live.recording(ended, hop=0, attempt=1, result=kept))
            batch.flush()
            await asyncio.sleep(0)
            assert not answer.there
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert (await answer).verdict is Verdict.OK
        assert (await batch.submit(live.recording(ended, hop=0, attempt=1))).verdict is Verdict.REFUSED
        await batch.drain()
        live.unbatch()
