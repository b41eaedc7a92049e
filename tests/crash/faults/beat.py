"""Beats die, or there are two; clocks are wrong."""

from __future__ import annotations

import signal
import time

from tests.crash.history import What
from tests.crash.scenario import Fault, Stage

_TICK = 2.0  # seconds
_LEAD = 15.0  # seconds within which another beat leads


def kill_beat(stage: Stage) -> None:
    """The record waits for the next beat, and is complete then."""
    stage.workers(1)
    stage.send(20, 0.1)
    stage.fault()
    for beat in stage.stack.beats.values():
        beat.kill(stage.history)
    stage.send(20, 0.1)


def two_beats(stage: Stage) -> None:
    """Each due time is met by one run, also when one of the beats is killed."""
    stage.workers(1)
    _beats(stage, 2)
    stage.until_seen(What.EFFECT, 2)
    stage.fault("from now on there are two")
    began, before = time.monotonic(), stage.count(What.EFFECT)
    stage.until(lambda: time.monotonic() - began > 4 * _TICK, 60, "some due times have passed")
    due = (time.monotonic() - began) / _TICK
    met = stage.count(What.EFFECT) - before
    stage.notes.append(f"{met} runs for {due:.1f} due times")
    stage.doubled += [f"due time {number}" for number in range(round(met - due - 1))]
    _no_beats(stage)


def beat_dead_over_due_time(stage: Stage) -> None:
    """What was due while no beat ran is caught up with, once."""
    stage.workers(1)
    _beats(stage, 1)
    stage.until_seen(What.EFFECT, 1)
    stage.fault()
    for beat in stage.stack.beats.values():
        beat.kill(stage.history)
    time.sleep(2.5 * _TICK)  # the fault itself: due times pass
    before = stage.count(What.EFFECT)
    began = time.monotonic()
    _beats(stage, 1)
    stage.until_seen(What.EFFECT, before + 1)
    stage.notes.append(f"caught up {time.monotonic() - began:.1f} s after the beat's start")
    _no_beats(stage)


def clock_ahead(stage: Stage) -> None:
    _wrong_clock(stage, 3600)


def clock_behind(stage: Stage) -> None:
    _wrong_clock(stage, -3600)


def _wrong_clock(stage: Stage, seconds: int) -> None:
    """One of two workers lives in another hour. Nobody's claim may run out, or last longer, for that."""
    stage.workers(1)
    stage.stack.wait_ready(stage.stack.start_worker("shifted", CRASH_CLOCK=str(seconds)))
    stage.send(8, 4)
    stage.until_seen(What.BEGUN, 4)
    stage.fault()
    stage.send(30, 0.2)
    stage.until(lambda: not stage.open_runs(), 60, "all is done")
    stage.until_acknowledged()
    stage.stack.stop_worker("shifted")


def _beats(stage: Stage, count: int) -> None:
    for number in range(1, count + 1):
        _end(stage, f"beat{number}")
        stage.stack.start_beat(number, CRASH_TICK=str(_TICK))


def _no_beats(stage: Stage) -> None:
    """Back to what the system had: a beat for its record, without a schedule."""
    for name in list(stage.stack.beats):
        _end(stage, name)
    if stage.stack.system.beat:
        stage.stack.start_beat()


def _end(stage: Stage, name: str) -> None:
    """End a beat in order, so that the next one need not wait for its lead."""
    beat = stage.stack.beats.pop(name, None)
    if beat is not None and beat.running:
        beat.signal(signal.SIGTERM)
        stage.until(lambda: not beat.running, 30, f"{name} has ended")


FAULTS = [
    Fault("KILL of the beat", kill_beat, "beat", bound=_LEAD),
    Fault("two beats", two_beats, "beat", bound=_LEAD),
    Fault("beat dead over a due time", beat_dead_over_due_time, "beat", bound=_LEAD),
    Fault("a worker's clock one hour ahead", clock_ahead, "beat", bound=10),
    Fault("a worker's clock one hour behind", clock_behind, "beat", bound=10),
]
