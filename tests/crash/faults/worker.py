"""Processes that work, or send, die or are told to stop."""

from __future__ import annotations

import os
import signal

from tests.crash.history import What
from tests.crash.points import Point
from tests.crash.scenario import Fault, Stage

_LONG = 8.0  # seconds: more than a worker that stops waits for
_LEASE = 15.0  # seconds within which a dead worker's messages are with others


def kill_main(stage: Stage) -> None:
    first, _ = stage.workers(2)
    stage.send(40, 0.5)
    stage.until_seen(What.BEGUN, 4)
    stage.fault()
    first.kill(stage.history)


def kill_child(stage: Stage) -> None:
    first, _ = stage.workers(2)
    stage.send(40, 0.5)
    stage.until(lambda: _working(stage, first.children()), 60, "a child of the first worker works")
    child = _working(stage, first.children())[-1]
    stage.fault()
    stage.history.write(What.KILLED, pid=child, note="a child")
    os.kill(child, signal.SIGKILL)


def kill_producer(stage: Stage) -> None:
    stage.workers(2)
    stage.stack.producer.ask(
        do="send_many", task=stage.stack.system.task, prefix=stage.name, count=100_000, args=[0.0]
    )
    stage.until_seen(What.ACCEPTED, round(100 * stage.scale))
    stage.fault()
    stage.stack.producer.kill(stage.history)
    stage.stack.producer = stage.stack.start_producer()


def terminate(stage: Stage) -> None:
    first, _ = stage.workers(2)
    stage.send(4, _LONG)
    stage.send(40, 0.3)
    stage.until_seen(What.BEGUN, 6)
    stage.fault()
    first.signal(signal.SIGTERM)
    stage.until(lambda: not first.running, 60, "the first worker has ended")
    stage.until(lambda: not stage.open_runs(), 60, "all is done")
    counted = max(fact.attempt for fact in stage.facts() if fact.what is What.BEGUN)
    if counted > 1:
        stage.extra.append(f"what was given back was counted as attempt {counted}")


def terminate_twice(stage: Stage) -> None:
    first, _ = stage.workers(2)
    stage.send(30, 1)
    stage.until_seen(What.BEGUN, 6)
    stage.fault()
    first.signal(signal.SIGTERM)
    stage.until(lambda: "hutdown" in first.said or not first.running, 30, "the first TERM was heard")
    if first.running:
        first.signal(signal.SIGTERM)
    stage.until(lambda: not first.running, 60, "the first worker has ended")


def die_reading(stage: Stage) -> None:
    _die_at(stage, Point.READ)


def die_received(stage: Stage) -> None:
    _die_at(stage, Point.RECEIVED)


def die_unacknowledged(stage: Stage) -> None:
    _die_at(stage, Point.EFFECT)


def _die_at(stage: Stage, point: Point) -> None:
    """Two workers in a row die at this point; each time a supervisor starts a new one."""
    stage.workers(2)
    stage.points.arm(point, 2)
    stage.fault()
    stage.send(40, 0.1)

    def both() -> bool:
        stage.stack.supervise()
        return stage.points.armed(point) == 0

    stage.until(both, 60, f"two workers died at {point}")


def _working(stage: Stage, pids: list[int]) -> list[int]:
    """Those of `pids` that are at a run just now."""
    at_work: dict[int, None] = {}
    for fact in stage.facts():
        if fact.what is What.BEGUN and fact.pid in pids:
            at_work[fact.pid] = None
        elif fact.what is What.ENDED:
            at_work.pop(fact.pid, None)
    return list(at_work)


FAULTS = [
    Fault("KILL of a worker's main process", kill_main, "worker", bound=_LEASE),
    Fault("KILL of a pool child", kill_child, "worker", bound=_LEASE, systems=("prefork", "celery")),
    Fault("KILL of the producer in mid-bulk", kill_producer, "worker", bound=10),
    Fault("TERM", terminate, "worker", bound=10),
    Fault("TERM twice", terminate_twice, "worker", bound=_LEASE),
    Fault("KILL between read and lease", die_reading, "worker", bound=_LEASE),
    Fault("KILL between received and started", die_received, "worker", bound=_LEASE),
    Fault(
        "KILL between effect and acknowledgement",
        die_unacknowledged,
        "worker",
        bound=_LEASE,
    ),
]
