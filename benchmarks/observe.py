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


@dataclass(frozen=True)
class Memory:
    """What processes weigh, in MiB.

    Attributes:
        resident: pages in memory; those that several processes share count for each.
        proportional: the same, a shared page divided among those that share it: what the machine gives
            up for them. Where the system does not tell, it is the resident memory.
    """

    resident: float
    proportional: float

    @classmethod
    def of(cls, pids: Iterable[int]) -> Memory:
        """Of these processes' families."""
        resident = proportional = 0
        for member in (member for pid in pids for member in family(pid)):
            try:
                facts: Any = member.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            resident += facts.rss
            proportional += getattr(facts, "pss", facts.rss)
        return cls(resident / 2**20, proportional / 2**20)


def server_cpu(client: redis.Redis) -> float:
    """CPU seconds of all threads of a Valkey or Redis server since it started."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def waiting(client: redis.Redis, key: str) -> int:
    """How many messages a key holds: of a stream, those not given out and those not acknowledged."""
    kind: Any = client.type(key)
    length: Any
    match kind.decode():
        case "none":
            return 0
        case "list":
            length = client.llen(key)
        case "zset":
            length = client.zcard(key)
        case "hash":
            length = client.hlen(key)
        case "set":
            length = client.scard(key)
        case "stream":
            length = client.xlen(key)
            groups: Any = client.xinfo_groups(key) if length else []
            if groups and all(group.get("lag") is not None for group in groups):
                length = sum(group["pending"] + group["lag"] for group in groups)
        case other:
            raise ValueError(f"{key} is a {other}; nothing is known of messages in such")
    return int(length)


def results_kept(client: redis.Redis, where: str) -> int:
    """How many results there are: fields of the hash of that name, or keys of that pattern."""
    if "*" not in where:
        return waiting(client, where)
    return sum(1 for _ in client.scan_iter(where, count=5_000))
