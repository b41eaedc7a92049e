"""Messages that harm: to those who take them, or because nobody can."""

from __future__ import annotations

import json

from tests.crash.history import What
from tests.crash.scenario import Fault, Stage

_MOST_TRIES = 3
GARBAGE = (b"", b"\x00\xff\xfe", b"not json", b"[]", b"{}", b"null", b'{"body": "?", "properties": {}}')


def poison(stage: Stage) -> None:
    """Each kind takes its process down, each time; the runs beside it are done all the same."""
    stage.workers(2)
    stage.send(6, 4)
    stage.send(20, 0.2)
    stage.fault()
    for kind in ("exit", "segfault"):
        stage.send(1, 0, "poison", kind)
    stage.send(20, 0.2)
    stage.send(6, 4)
    _given_up(stage, 2)


def memory(stage: Stage) -> None:
    """A run that wants more memory than there is."""
    stage.workers(2)
    stage.fault()
    stage.send(1, 0, "poison", "memory")
    stage.send(20, 0.2)


def undecodable(stage: Stage) -> None:
    """Bytes that no producer sends, between runs that are to be done."""
    stage.workers(1)
    stage.send(10, 0.1)
    stage.fault()
    for data in GARBAGE:
        stage.stack.system.put_raw(data)
    stage.stack.system.put_raw(json.dumps(_wrong_body()).encode())
    stage.send(10, 0.1)


def unknown(stage: Stage) -> None:
    """Runs of a task that no worker knows."""
    stage.workers(1)
    stage.fault()
    stage.send(5, 0, "nobody.knows", 1)
    stage.send(10, 0.1)


def _given_up(stage: Stage, kinds: int) -> None:
    """Wait until the poison is given up, or was tried more often than it may."""

    def over() -> bool:
        stage.stack.supervise()
        return not stage.open_runs() or stage.count(What.KILLED) > kinds * _MOST_TRIES + 2

    stage.until(over, 150, "the poison is given up")
    tries = [fact.run for fact in stage.facts() if fact.what is What.BEGUN and fact.task == "poison"]
    most = max((tries.count(run) for run in tries), default=0)
    stage.notes.append(f"tried {most} times at most")


def _wrong_body() -> dict[str, object]:
    """A message that is well formed outside, and holds a body that is not."""
    return {
        "body": "bm90IGpzb24=", "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": "mark", "id": "11111111-1111-4111-8111-111111111111"},
        "properties": {
            "body_encoding": "base64", "delivery_tag": "t", "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "work"},
        },
    }  # fmt: skip


FAULTS = [
    Fault("poison: os._exit, segmentation fault", poison, "messages", bound=60, doomed=("poison",)),
    Fault("poison: out of memory", memory, "messages", bound=60),
    Fault("undecodable messages", undecodable, "messages", bound=10),
    Fault("unknown task", unknown, "messages", bound=30, doomed=("nobody.knows",)),
]
