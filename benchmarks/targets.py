"""What Errands sets itself beside its peers, and whether a result reaches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Better
from benchmarks.report import Result, number

OURS = "errands"
LEDGER, UNRECORDED = "errands_ledger", "errands_unrecorded"
_TASKIQ = ("taskiq_list", "taskiq_streams")
_WITH_A_CALL_FOR_MANY = ("celery", "streaq", "procrastinate")


@dataclass(frozen=True)
class Verdict:
    """One target and what came out.

    Attributes:
        label: what was to be reached.
        found: what was found, in words; empty where it was not measured.
        reached: None where it was not measured.
        dream: whether what was dreamt of was reached as well; None where there is no dream.
    """

    label: str
    found: str = ""
    reached: bool | None = None
    dream: bool | None = None


@dataclass(frozen=True)
class Target:
    """One target: its words, and how a result is judged by it."""

    label: str
    judge: Callable[[Result, str], Verdict]


def _times(
    label: str, key: str, least: float, dream: float | None = None, peers: Sequence[str] = ()
) -> Target:
    """At least that many times the best of these peers (all of them, if none is named)."""

    def judge(result: Result, label: str) -> Verdict:
        best = result.best(key, Better.HIGHER, peers)
        found = best and result.ratio(OURS, best, key)
        if not best or not found:
            return Verdict(label)
        words = f"{found:.2f}x {result.contenders[best]['label']}"
        return Verdict(label, words, found >= least, None if dream is None else found >= dream)

    return Target(label, judge)


def _one_by_one(result: Result, label: str) -> Verdict:
    celery, huey = (result.ratio(OURS, peer, "accept.rate") for peer in ("celery", "huey"))
    if celery is None:
        return Verdict(label)
    words = f"{celery:.2f}x Celery" + (f", {huey:.2f}x Huey" if huey else "")
    return Verdict(label, words, celery >= 4, None if huey is None else huey >= 1)


def _soon(result: Result, label: str) -> Verdict:
    pickup, ping = result.median(OURS, "pickup.p50"), result.median(OURS, "ping.p50")
    if pickup is None or ping is None:
        return Verdict(label)
    return Verdict(label, f"{number(pickup)} ms, {number(pickup - ping)} more", pickup - ping <= 1)


def _never_late(result: Result, label: str) -> Verdict:
    best = result.best("pickup.p99", Better.LOWER)
    ours, theirs = result.median(OURS, "pickup.p99"), best and result.median(best, "pickup.p99")
    if not best or ours is None or not theirs:
        return Verdict(label)
    words = f"{number(ours)} ms; {result.contenders[best]['label']} {number(theirs)}"
    return Verdict(label, words, ours <= theirs)


def _light(key: str) -> Callable[[Result, str], Verdict]:
    def judge(result: Result, label: str) -> Verdict:
        found = result.ratio(OURS, "celery", key)
        ours, theirs = result.median(OURS, key), result.median("celery", key)
        if found is None or ours is None or theirs is None:
            return Verdict(label)
        return Verdict(label, f"{number(ours)} MiB; Celery {number(theirs)}", found <= 1)

    return judge


def _few_commands(result: Result, label: str) -> Verdict:
    run, send = result.median(OURS, "commands.run"), result.median(OURS, "commands.send")
    if run is None or send is None:
        return Verdict(label)
    return Verdict(label, f"{number(run)}, and {number(send)} to send it", run <= 4, run <= 1)


def _slowed(contender: str) -> Callable[[Result, str], Verdict]:
    def judge(result: Result, label: str) -> Verdict:
        found = result.ratio(contender, UNRECORDED, "drain.rate")
        if found is None:
            return Verdict(label)
        return Verdict(label, f"{100 * (1 - found):.0f} % slower", found >= 0.9)

    return judge


TARGETS = (
    _times("drain with results: 1.0x the best peer (dream 1.5x)", "drain.rate", 1.0, 1.5),
    _times("drain without results: 1.0x the best peer (dream 1.5x)", "bare.rate", 1.0, 1.5),
    _times("tasks that wait 20 ms: 1.2x Taskiq (dream 2x)", "sleepers.rate", 1.2, 2.0, _TASKIQ),
    Target("sending one by one: 4x Celery (dream: Huey's rate)", _one_by_one),
    _times(
        "sending many: 1.5x the best peer with a call for many (dream 5x)",
        "many.rate", 1.5, 5.0, _WITH_A_CALL_FOR_MANY,
    ),
    Target("pick-up, median: at most 1 ms over the raw round trip", _soon),
    Target("pick-up, 99 %: at most the best peer's", _never_late),
    Target("memory of one worker, each as it comes: at most Celery's", _light("default.memory")),
    Target("memory of all processes, each at its best for 2 cores: at most Celery's", _light("drain.memory")),
    Target("commands sent to the broker to run a task with its result: at most 4 (dream 1)", _few_commands),
    Target("slowed by events being written: at most 10 %", _slowed(OURS)),
    Target("slowed by events and a beat that moves them into the ledger: at most 10 %", _slowed(LEDGER)),
)  # fmt: skip


def judge(result: Result) -> list[Verdict]:
    """Every target, judged by the medians over the rounds."""
    return [target.judge(result, target.label) for target in TARGETS] if OURS in result.rounds else []
