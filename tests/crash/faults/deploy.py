"""Deployments while work goes on."""

from __future__ import annotations

import signal

from tests.crash.history import What
from tests.crash.scenario import Fault, Stage


def rolling_restart(stage: Stage) -> None:
    """Each worker is told to stop and is replaced, one after the other, while runs come in."""
    stage.workers(2)
    with stage.sending(rate=20, seconds=0.2):
        stage.until_seen(What.ENDED, 10)
        stage.fault()
        for name, worker in list(stage.stack.workers.items()):
            worker.signal(signal.SIGTERM)
            stage.until(lambda worker=worker: not worker.running, 60, f"{name} has ended")
            stage.stack.wait_ready(stage.stack.start_worker(name))
        stage.healed()


def renamed_task(stage: Stage) -> None:
    """The new version calls a task by another name. For a while both versions run, and both names come."""
    (old,) = stage.workers(1)
    stage.send(10, 0.2, "old-name", 0.2)
    stage.until_seen(What.BEGUN, 2)
    stage.fault()
    stage.stack.wait_ready(stage.stack.start_worker("new", CRASH_VERSION="2"))
    stage.send(10, 0.2, "old-name", 0.2)
    stage.send(10, 0.2, "new-name", 0.2)
    stage.until_seen(What.ENDED, 20)
    old.signal(signal.SIGTERM)
    stage.until(lambda: not old.running, 60, "the old version has ended")
    stage.stack.workers.pop(old.name)
    stage.healed()
    stage.until(lambda: not stage.open_runs(), 60, "all is done")
    stage.until_acknowledged()
    stage.stack.stop_worker("new")


FAULTS = [
    Fault("rolling restart under load", rolling_restart, "deploy", bound=15),
    Fault("deploy with a renamed task", renamed_task, "deploy", bound=15),
]
