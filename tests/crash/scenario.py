"""One fault put to one system: load, fault, wait, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import redis
from tests.crash.checker import Report, check
from tests.crash.history import Fact, What, now
from tests.crash.points import Points
from tests.crash.proxy import Proxy
from tests.crash.stack import Process, Producer, Stack

_LOOK_SECONDS = 0.05
_SETTLE_SECONDS = 30.0
_FEW = 20
_WORST = 2
_LONG = 1.0
_ENDS = (What.ENDED, What.RAISED, What.REVOKED)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and what is promised of it.

    Attributes:
        name: the row in the table.
        inject: load and fault as a story, told on a `Stage`.
        family: faults that may share one stack.
        bound: seconds within which every run that was open goes on; twice as many at the worst, on a machine
            that has too much to do, before it counts as a broken promise.
        doomed: tasks whose runs may become dead letters.
        systems: those that it is put to; all by default.
    """

    name: str
    inject: Callable[[Stage], None]
    family: str
    bound: float
    doomed: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a fault: a line of the table."""

    system: str
    fault: str
    bound: float
    report: Report
    seconds: float
    slowest_refusal: float | None
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()  # what only the story itself could see

    @property
    def violations(self) -> list[str]:
        """All broken promises, recovery included."""
        found = [*self.report.violations, *self.broken]
        recovery = self.report.recovery
        if recovery is not None and recovery > _WORST * self.bound:
            found.append(f"went on after {recovery:.1f} s, promised within {self.bound:g} s")
        return found

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "violations": self.violations}


class Stage:
    """Where a fault's story is told: a running stack, and the part of its history that counts.

    Args:
        stack: with a producer, and a beat where the system needs one.
        name: begins the keys of this story's runs.
        scale: how much larger than the short form.
    """

    def __init__(self, stack: Stack, name: str, scale: float = 1.0) -> None:
        self.stack = stack
        self.history = stack.history
        self.points = Points(stack.folder)
        self.name = name
        self.scale = scale
        self.notes: list[str] = []
        self.doubled: list[str] = []  # what was done twice under different keys
        self.extra: list[str] = []  # promises that only this story knows, and that were broken
        self.proxy: Proxy | None = None  # through which some worker's way leads
        self._read_to = self.history.size
        self._facts: list[Fact] = []
        self._sent = 0

    # -- load

    def workers(self, count: int = 2, **environment: str) -> list[Process]:
        """So many workers and no more, ready; those that run already count."""
        for name in list(self.stack.workers)[count:]:
            self.stack.stop_worker(name)
        for number in range(1, count + 1):
            worker = self.stack.workers.get(f"w{number}")
            if worker is None or not worker.running:
                self.stack.start_worker(f"w{number}", **environment)
        self.stack.wait_ready()
        return list(self.stack.workers.values())[:count]

    def send(self, count: int, seconds: float = 0.2, task: str = "", *args: object) -> dict[str, int]:
        """Send runs that work for so many seconds each, and wait until they are sent.

        Of those that take long, as many in each form: else the time until all go on would tell of the queue.
        """
        count = count if seconds >= _LONG else max(1, round(count * self.scale))
        order = self.order(count, seconds, task, *args)
        return self.stack.producer.do(**order)

    @contextmanager
    def sending(self, rate: float, seconds: float = 0.1) -> Iterator[Producer]:
        """Send without a pause inside the block, so many a second."""
        order = {**self.order(10_000_000, seconds), "rate": rate}
        self.stack.producer.ask(**order)
        try:
            yield self.stack.producer
        finally:
            if self.stack.producer.running:
                self.stack.producer.hush()

    def order(self, count: int, seconds: float, task: str = "", *args: object) -> dict[str, object]:
        """What a producer is told, so that it sends runs with keys of their own."""
        self._sent += 1
        task = task or self.stack.system.task
        return {
            "do": "send", "task": task, "prefix": f"{self.name}-{self._sent}", "first": 0, "count": count,
            "args": list(args) or [seconds], "rate": None, "options": {},
        }  # fmt: skip

    # -- fault

    def fault(self, note: str = "") -> None:
        """The fault begins."""
        self.history.write(What.FAULT, note=note)

    def healed(self, note: str = "") -> None:
        """What it took away is there again."""
        self.history.write(What.HEALED, note=note)

    # -- watching

    def facts(self) -> list[Fact]:
        """What was seen since the story began."""
        more, self._read_to = self.history.tail(self._read_to)
        self._facts += more
        return self._facts

    def count(self, what: What) -> int:
        """How often something was seen since the story began."""
        return sum(fact.what is what for fact in self.facts())

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for a condition."""
        self.stack.until(condition, seconds, what)

    def until_seen(self, what: What, count: int = 1, seconds: float = 60.0) -> None:
        """Wait until something was seen so often since the story began."""
        self.until(lambda: self.count(what) >= count, seconds, f"{count} × {what}")

    def until_acknowledged(self) -> None:
        """Before workers are ended that nobody comes after: wait until they said what they have done."""
        accepted = {fact.run for fact in self.facts() if fact.what is What.ACCEPTED}
        self.until(lambda: not held(self.stack, accepted), 30, "all is acknowledged")

    def open_runs(self) -> set[str]:
        """Runs that were accepted, have not ended, and are no dead letters."""
        facts = self.facts()
        accepted = {fact.run for fact in facts if fact.what is What.ACCEPTED}
        still_open = accepted - {fact.run for fact in facts if fact.what in _ENDS}
        # Asked only when few are left: it costs the system something.
        return still_open - set(self.stack.system.dead()) if 0 < len(still_open) <= _FEW else still_open


def play(stack: Stack, fault: Fault, *, scale: float = 1.0, patience: float | None = None) -> Row:
    """Put a fault to a stack, wait until everything accepted has ended or the patience has, and judge.

    Args:
        stack: running.
        fault: the story.
        scale: how much larger than the short form.
        patience: seconds to wait at most after the story; by default somewhat more than the fault's bound.
    """
    began = time.monotonic()
    stage = Stage(stack, _slug(fault.name), scale)
    try:
        fault.inject(stage)
    except AssertionError as exc:  # the story itself could not be told to its end
        lines = str(exc).splitlines()
        stage.extra.append(" … ".join(dict.fromkeys([lines[0], lines[-1]])))
    accepted = {fact.run for fact in stage.facts() if fact.what is What.ACCEPTED}
    deadline = time.monotonic() + (fault.bound + 20 if patience is None else patience)
    while time.monotonic() < deadline:
        stack.supervise()
        if not stage.open_runs():
            break
        time.sleep(_LOOK_SECONDS)
    _settle(stage, accepted)
    facts = stage.facts()
    final = replace(stack.system.final(accepted), held=held(stack, accepted))
    report = check(facts, final, stack.history.keys(), doomed=fault.doomed)
    report = replace(report, doubled=[*report.doubled, *stage.doubled])
    refusals = [fact.seconds for fact in facts if fact.what is What.REFUSED]
    return Row(
        system=stack.system.label, fault=fault.name, bound=fault.bound, report=report,
        seconds=round(time.monotonic() - began, 1), slowest_refusal=max(refusals, default=None),
        notes=tuple(stage.notes), broken=tuple(stage.extra),
    )  # fmt: skip


def held(stack: Stack, runs: set[str]) -> set[str]:
    """Those of `runs` whose message is still in the server: in a queue, delayed, or with somebody."""
    client, found = stack.client, set()
    readers = {
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hvals,
        b"stream": lambda key: [value for _, fields in client.xrange(key) for value in fields.values()],
    }
    for key in client.scan_iter(count=1000) if runs else ():
        reader = readers.get(client.type(key))
        if reader is None or not key.startswith(stack.system.holding) or key.endswith(b":dead"):
            continue
        messages = b"".join(reader(key))
        found |= {run for run in runs if run.encode() in messages}
    return found


def _settle(stage: Stage, accepted: set[str]) -> None:
    """Give the system time to say its last word; what it has not said by then is judged as it is."""
    done = accepted - stage.open_runs()
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        try:
            left = held(stage.stack, done)
            if not left and stage.stack.system.settled(done):
                return
        except redis.RedisError:
            pass  # it is judged all the same
        time.sleep(_LOOK_SECONDS)


def _slug(name: str) -> str:
    return f"{''.join(c if c.isalnum() else '-' for c in name.lower())}-{int(now() * 1000)}"
