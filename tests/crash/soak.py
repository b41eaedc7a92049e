"""Faults mixed at random from a seed, under load, for as long as one likes; every promise must hold."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from tests.crash.history import What
from tests.crash.mischief import MISCHIEF, STEADY
from tests.crash.proxy import Proxy
from tests.crash.scenario import Fault, Row, Stage, play
from tests.crash.stack import Stack
from tests.crash.systems import SYSTEMS, ErrandsSystem

_PAUSE = (3.0, 12.0)  # seconds between two faults
_RATE = 15.0  # runs a second
_LOOK_SECONDS = 5.0
_GROWTH = 1.3  # of memory, from the second quarter to the last
_MORE_DESCRIPTORS = 10
_BOUND = 60.0
_SAMPLES_KEPT = 50


class Watch:
    """Memory and descriptors of a process over time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.samples: list[tuple[int, int]] = []
        self._next = 0.0

    def look(self) -> None:
        """Take a sample, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_SECONDS
        try:
            process = psutil.Process(self._pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess as exc:
            raise AssertionError("the worker that no fault ends has ended") from exc
        memory = descriptors = 0
        for member in family:
            try:
                memory += member.memory_info().rss
                descriptors += member.num_fds()
            except psutil.NoSuchProcess:
                continue
        self.samples.append((memory, descriptors))

    def growth(self) -> list[str]:
        """What grew from the second quarter to the last, as lines."""
        quarter = len(self.samples) // 4
        if quarter < 3:
            return []
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        memory = [statistics.median(sample[0] for sample in part) for part in (early, late)]
        descriptors = [statistics.median(sample[1] for sample in part) for part in (early, late)]
        found = []
        if memory[1] > memory[0] * _GROWTH:
            found.append(f"memory grew from {memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} MiB")
        if descriptors[1] > descriptors[0] + _MORE_DESCRIPTORS:
            found.append(f"descriptors grew from {descriptors[0]:.0f} to {descriptors[1]:.0f}")
        return found


def run(name: str, minutes: float, seed: int | None, console: Console) -> tuple[list[Row], dict[str, Any]]:
    """Mix faults for so long. Returns one row, and what was told beside it."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    console.print(f"seed {seed}: repeat with --long {minutes:g} --seed {seed}", highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="errands-soak-"))
    told: dict[str, Any] = {"seed": seed, "minutes": minutes, "faults": [], "violations": []}
    with Stack(folder, SYSTEMS[name]) as stack, Proxy(stack.server.port) as proxy:
        stack.client.config_set("appendfsync", "always")
        # The worker that no fault ends: it tells whether memory or descriptors grow.
        steady = stack.start_worker(STEADY, CRASH_SPARED="1")
        watch = Watch(steady.pid)
        # One of the others lives an hour ahead, one far away.
        stack.start_worker("w1", CRASH_CLOCK="3600")
        distant = stack.url.replace(f":{stack.server.port}/", f":{proxy.port}/")
        stack.start_worker("w2", **stack.system.environment(distant))
        stack.wait_ready()

        def inject(stage: Stage) -> None:
            stage.proxy = proxy
            _mix(stage, random.Random(seed), minutes * 60, watch, told, console)

        row = play(
            stack,
            Fault("mixed faults", inject, "soak", _BOUND, doomed=("poison", "nobody.knows")),
            patience=_BOUND + 60,
        )
    told["violations"] = watch.growth()
    step = max(1, len(watch.samples) // _SAMPLES_KEPT)
    told["samples"] = [(memory // 2**20, count) for memory, count in watch.samples[::step]]
    console.print(f"history and logs: {folder}", highlight=False, soft_wrap=True)
    return [row], told


def _mix(
    stage: Stage, chance: random.Random, seconds: float, watch: Watch, told: dict[str, Any], console: Console
) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        mischief = chance.choice(MISCHIEF)
        pause = chance.uniform(*_PAUSE)
        console.print(f"{stage.count(What.ENDED):6} runs ended; {mischief.__name__}", highlight=False)
        told["faults"].append(mischief.__name__)
        with stage.sending(_RATE, seconds=0.1):
            stage.fault(mischief.__name__)
            mischief(stage, chance)
            stage.healed()
            rest = time.monotonic() + pause
            while time.monotonic() < rest:
                stage.stack.supervise()
                if isinstance(stage.stack.system, ErrandsSystem):
                    stage.stack.system.follow()
                watch.look()
                time.sleep(0.2)
