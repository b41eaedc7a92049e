"""What processes and the server have used so far; two observations tell what happened in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import redis


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; none if it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of these processes' families, children that ended included."""
    total = 0.0
    for member in (member for pid in pids for member in family(pid)):
        try:
            total += sum(member.cpu_times()[:4])  # user, system, and both of children that were waited for
        except psutil.NoSuchProcess:
            continue
    return total


def resident_mib(pids: Iterable[int]) -> float:
    """Resident memory of these processes' families in MiB; pages that they share count for each."""
    total = 0
    for member in (member for pid in pids for member in family(pid)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


@dataclass(frozen=True)
class ServerUse:
    """What a Valkey or Redis server has done since it started.

    Attributes:
        commands: executed; those inside scripts count as well.
        reads: how often it read from a connection, about once a round trip.
        cpu: seconds of all its threads.
    """

    commands: int
    reads: int
    cpu: float

    @classmethod
    def of(cls, client: redis.Redis) -> ServerUse:
        """As the server itself tells it."""
        info: Any = client.info("everything")
        commands = sum(facts["calls"] for name, facts in info.items() if name.startswith("cmdstat_"))
        return cls(commands, info["total_reads_processed"], info["used_cpu_user"] + info["used_cpu_sys"])

    def __sub__(self, before: ServerUse) -> ServerUse:
        return ServerUse(self.commands - before.commands, self.reads - before.reads, self.cpu - before.cpu)
