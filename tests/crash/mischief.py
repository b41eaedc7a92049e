"""What the soak does to a system, one thing at a time, while runs come in."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

from tests.crash.faults.messages import GARBAGE
from tests.crash.history import What
from tests.crash.points import Point
from tests.crash.scenario import Stage
from tests.crash.stack import Process

Mischief = Callable[[Stage, random.Random], None]
STEADY = "steady"  # the worker that nothing here ends


def kill_worker(stage: Stage, chance: random.Random) -> None:
    """KILL a worker's main process."""
    _one(stage, chance).kill(stage.history)


def kill_child(stage: Stage, chance: random.Random) -> None:
    """KILL a child of a worker; where it has none, the worker."""
    worker = _one(stage, chance)
    children = sorted(worker.children())
    if not children:
        worker.kill(stage.history)
        return
    child = chance.choice(children)
    stage.history.write(What.KILLED, pid=child, note="a child")
    os.kill(child, signal.SIGKILL)


def terminate(stage: Stage, chance: random.Random) -> None:
    """TERM to a worker."""
    _one(stage, chance).signal(signal.SIGTERM)


def terminate_twice(stage: Stage, chance: random.Random) -> None:
    """TERM to a worker, and another one soon after."""
    worker = _one(stage, chance)
    worker.signal(signal.SIGTERM)
    time.sleep(chance.uniform(0.05, 1))
    if worker.running:
        worker.signal(signal.SIGTERM)


def die_at_a_point(stage: Stage, chance: random.Random) -> None:
    """Let a worker die while it reads, before it starts a run, or before it can say that it is done."""
    stage.points.arm(chance.choice(list(Point)))


def kill_beat(stage: Stage, chance: random.Random) -> None:
    """KILL a beat."""
    beats = [beat for beat in stage.stack.beats.values() if beat.running]
    if beats:
        chance.choice(beats).kill(stage.history)


def second_beat(stage: Stage, chance: random.Random) -> None:
    """One beat more, or one less."""
    if extra := stage.stack.beats.pop("beat2", None):
        extra.signal(signal.SIGTERM)
    elif stage.stack.system.beat:
        stage.stack.start_beat(2)


def kill_server(stage: Stage, chance: random.Random) -> None:
    """KILL the server, whose every write is on disk, and start it again."""
    stage.stack.server.kill()
    time.sleep(chance.uniform(0, 3))
    stage.stack.server.start()
    stage.stack.client.config_set("appendfsync", "always")


def stop_server(stage: Stage, chance: random.Random) -> None:
    """Let the server stand still for a while."""
    process = stage.stack.server.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    time.sleep(chance.choice([0.5, 3, 12, 30]))
    process.send_signal(signal.SIGCONT)


def full_server(stage: Stage, chance: random.Random) -> None:
    """No space for a while."""
    client = stage.stack.client
    client.config_set("maxmemory", "1")
    time.sleep(chance.uniform(1, 5))
    client.config_set("maxmemory", "0")


def cut_connections(stage: Stage, chance: random.Random) -> None:
    """Cut the way of a worker a few times."""
    for _ in range(chance.randint(1, 5)):
        if stage.proxy is not None:
            stage.proxy.cut()
        time.sleep(chance.uniform(0, 0.5))


def slow_link(stage: Stage, chance: random.Random) -> None:
    """Let the way of a worker be slow for a while."""
    if stage.proxy is not None:
        stage.proxy.delay = chance.uniform(0.01, 0.3)
        time.sleep(chance.uniform(1, 5))
        stage.proxy.delay = 0


def poison(stage: Stage, chance: random.Random) -> None:
    """A run that takes each process down that touches it."""
    _send_beside(stage, 1, "poison", chance.choice(["exit", "segfault"]))


def undecodable(stage: Stage, chance: random.Random) -> None:
    """Bytes that are no message."""
    stage.stack.system.put_raw(chance.choice(GARBAGE))


def unknown(stage: Stage, _: random.Random) -> None:
    """A run of a task that nobody knows."""
    _send_beside(stage, 2, "nobody.knows", 1)


def revoke(stage: Stage, _: random.Random) -> None:
    """Take a few runs back that were sent for later."""
    producer = stage.stack.start_producer()
    seen = len(stage.facts())
    producer.do(**{**stage.order(5, 0.1), "options": {"countdown": 20}})
    mine = [
        fact.run for fact in stage.facts()[seen:] if fact.what is What.ACCEPTED and fact.pid == producer.pid
    ]
    producer.do(do="revoke", runs=mine)
    producer.end()


def kill_producer(stage: Stage, chance: random.Random) -> None:
    """KILL a producer in the middle of a bulk."""
    producer = stage.stack.start_producer()
    task = stage.stack.system.task
    producer.ask(
        do="send_many", task=task, prefix=f"bulk-{producer.pid}-{chance.random()}", count=300, args=[0]
    )
    time.sleep(chance.uniform(0, 0.3))
    producer.kill(stage.history)


def _send_beside(stage: Stage, count: int, task: str, *args: object) -> None:
    """Send by a producer of its own: the first one is busy."""
    producer = stage.stack.start_producer()
    producer.do(**stage.order(count, 0, task, *args))
    producer.end()


def _one(stage: Stage, chance: random.Random) -> Process:
    """A worker that may be ended."""
    stage.stack.supervise()
    return chance.choice([worker for name, worker in stage.stack.workers.items() if name != STEADY])


MISCHIEF: tuple[Mischief, ...] = (
    kill_worker, kill_child, terminate, terminate_twice, die_at_a_point, kill_beat, second_beat, kill_server,
    stop_server, full_server, cut_connections, slow_link, poison, undecodable, unknown, revoke, kill_producer,
)  # fmt: skip
