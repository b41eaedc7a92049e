"""The server dies, stands still, or is full."""

from __future__ import annotations

import signal
import time

from tests.crash.history import What
from tests.crash.scenario import Fault, Stage

_BACK = 10.0  # seconds from when the server answers until each open run goes on


def kill_server(stage: Stage) -> None:
    """With every write on disk before it is answered, nothing that was accepted may be gone."""
    stage.workers(2)
    server, client = stage.stack.server, stage.stack.client
    client.config_set("appendfsync", "always")
    with stage.sending(rate=40, seconds=0.2):
        stage.until_seen(What.ENDED, round(20 * stage.scale))
        stage.fault()
        server.kill()
        stage.until_seen(What.REFUSED, 2)
        server.start()
        client.config_set("appendfsync", "always")
        stage.healed()
        _goes_on(stage)
    client.config_set("appendfsync", "everysec")


def fail_meanwhile(stage: Stage) -> None:
    """An attempt fails while there is no server to send its retry to."""
    stage.workers(2)
    gate = stage.stack.folder / f"{stage.name}.gate"
    stage.send(1, 0, "stumble", str(gate))
    stage.until_seen(What.BEGUN)
    stage.fault()
    stage.stack.server.kill()
    gate.touch()
    told = [worker.log for worker in stage.stack.workers.values()]
    stage.until(lambda: any("onnection" in log.read_text() for log in told), 30, "a worker misses its server")
    stage.stack.server.start()
    stage.healed()


def stop_server(stage: Stage) -> None:
    """A server that stands still for as long as a lease lasts, and longer."""
    _stand_still(stage, 12 if stage.scale <= 1 else 30)


def _stand_still(stage: Stage, seconds: float) -> None:
    stage.workers(2)
    process = stage.stack.server.process
    assert process is not None
    stage.send(4, 3)
    stage.send(30, 0.3)
    stage.until_seen(What.BEGUN, 6)
    with stage.sending(rate=5):
        stage.fault()
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)  # it is the fault itself that lasts
        finally:
            process.send_signal(signal.SIGCONT)
        stage.healed()


def full_server(stage: Stage) -> None:
    """Senders are told; what was accepted is done, and acknowledged; then there is space again."""
    stage.workers(2)
    stage.send(60, 0.2)
    stage.until_seen(What.BEGUN, 4)
    client = stage.stack.client
    with stage.sending(rate=20, seconds=0.1):
        stage.fault()
        client.config_set("maxmemory", "1")
        stage.until_seen(What.REFUSED, 5, 30)
        try:
            stage.until(lambda: not stage.open_runs(), 30, "what was accepted is done on a full server")
        finally:
            client.config_set("maxmemory", "0")
        stage.healed()
        _goes_on(stage)


def _goes_on(stage: Stage) -> None:
    """Sending works again, and so does each worker."""
    healed = stage.facts()[-1].at
    workers = set(stage.stack.workers)

    def all_at_work() -> bool:
        stage.stack.supervise()
        back = {fact.worker for fact in stage.facts() if fact.what is What.BEGUN and fact.at > healed}
        return back >= workers

    began = time.monotonic()
    try:
        stage.until(all_at_work, 60, "each worker works again")
    except AssertionError:
        stage.notes.append("not every worker came back within 60 s")
    else:
        stage.notes.append(f"each worker worked again after {time.monotonic() - began:.1f} s")


FAULTS = [
    Fault("KILL of the broker, append-only file", kill_server, "broker", bound=_BACK),
    Fault("attempt fails while the broker is away", fail_meanwhile, "broker", bound=_BACK),
    Fault("broker STOPped", stop_server, "broker", bound=_BACK),
    Fault("broker full, then space again", full_server, "broker", bound=_BACK),
]
