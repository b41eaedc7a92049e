"""What limits are now: as they are declared, or as somebody has changed them for all workers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.core.errors import ErrandsError
from errands.core.limits import RATE, SLOTS, Bound, Declared

_MICRO = 1_000_000
_AT_ONCE = 1000  # keys in one call


class LimitNotFound(ErrandsError):
    """No task has a limit of this name."""


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """How it stands with a limit.

    Args:
        name: the task's, or the one that it was given.
        declared: what the code says: "100/m", "2 at once".
        now: what holds.
        by: the argument for each of whose values it holds by itself; None for all runs together.
        tasks: that are under it.
        waiting: how many runs wait for it; None where nobody counts them (in inline mode).
    """

    name: str
    declared: str
    now: str
    by: str | None
    tasks: tuple[str, ...]
    waiting: int | None

    @property
    def changed(self) -> bool:
        """Whether it is another one than the code says."""
        return self.now != self.declared


class Limits:
    """The limits of an app: `app.limits`.

    Args:
        clients: connections to Valkey.
        keys: key names.
        declared: the limits in the code, by kind and name.
        inline: where changed ones are kept in inline mode; None: in Valkey.
    """

    def __init__(
        self, clients: Clients, keys: Keys, declared: dict[str, Declared], inline: dict[str, Bound] | None
    ) -> None:
        self._clients = clients
        self._keys = keys
        self._declared = declared
        self._inline = inline

    def all(self) -> list[LimitStatus]:
        """Each limit, by name.

        Raises:
            redis.RedisError: Valkey does not answer.
        """
        changed, waiting = self._changed(), self._waiting()
        return [
            LimitStatus(
                name=limit.name, declared=str(limit.bound), now=str(changed.get(full, limit.bound)),
                by=limit.by, tasks=limit.tasks, waiting=None if waiting is None else waiting.get(full, 0),
            )
            for full, limit in sorted(self._declared.items(), key=lambda item: item[1].name)
        ]  # fmt: skip

    def change(self, name: str, to: str | int) -> None:
        """Change a limit for all workers, from the next start on, until `reset`.

        Calls are still refused by what the code says if they count more than the whole limit.

        Args:
            name: of the task, or of the limit if it was given one.
            to: a rate ("50/m") changes the `Limit` of this name, a number (3) its `Concurrency`.

        Raises:
            LimitNotFound: there is no such limit.
            ConfigurationError: `to` is no limit, or zero.
            redis.RedisError: Valkey does not answer.
        """
        bound = Bound.parse(to)
        full = self._full(name, bound.kind)
        if self._inline is not None:
            self._inline[full] = bound
            return
        self._clients.sync.hset(self._keys.limits, full, f"{bound.most} {bound.seconds * _MICRO}")
        self._look_now(full)

    def reset(self, name: str) -> None:
        """Let what the code says hold again: of the `Limit` and the `Concurrency` of this name.

        Raises:
            LimitNotFound: there is no such limit.
            redis.RedisError: Valkey does not answer.
        """
        for full in self._all_of(name):
            if self._inline is not None:
                self._inline.pop(full, None)
            else:
                self._clients.sync.hdel(self._keys.limits, full)
                self._look_now(full)

    def _all_of(self, name: str) -> list[str]:
        found = [full for kind in (RATE, SLOTS) if (full := _full(kind, name)) in self._declared]
        if not found:
            raise LimitNotFound(f"there is no limit {name[:100]!r}; {self._names(set(self._declared))}")
        return found

    def _full(self, name: str, kind: str) -> str:
        full = _full(kind, name)
        if full not in self._declared:
            what = "rate" if kind == RATE else "limit on how many at once"
            same = {other for other in self._declared if other.startswith(f"{kind}:")}
            raise LimitNotFound(f"there is no {what} with the name {name[:100]!r}; {self._names(same)}")
        return full

    def _names(self, full: set[str]) -> str:
        return f"there are: {', '.join(sorted({self._declared[each].name for each in full})) or 'none'}"

    def _changed(self) -> dict[str, Bound]:
        if self._inline is not None:
            return dict(self._inline)
        kept: Any = self._clients.sync.hgetall(self._keys.limits)
        found = {}
        for full, value in kept.items():
            most, period = value.split()
            found[full.decode()] = Bound(int(most), int(period) // _MICRO)
        return found

    def _waiting(self) -> dict[str, int] | None:
        """Runs that wait, by kind and name."""
        if self._inline is not None:
            return None
        found: dict[str, int] = {}
        for bases in self._bases():
            with self._clients.sync.pipeline(transaction=False) as pipe:
                for base in bases:
                    pipe.zcard(base + b":lot")
                for base, count in zip(bases, pipe.execute(), strict=True):
                    full = self._full_of(base)
                    found[full] = found.get(full, 0) + int(count)
        return found

    def _look_now(self, full: str) -> None:
        """Let workers look at once at those who wait for this limit."""
        seconds, micros = self._clients.sync.time()
        now = seconds * _MICRO + micros
        for bases in self._bases():
            due = {base: now for base in bases if self._full_of(base) == full}
            if due:
                self._clients.sync.zadd(self._keys.limits_waiting, due, xx=True)

    def _bases(self) -> list[list[bytes]]:
        found: Any = self._clients.sync.zrange(self._keys.limits_waiting, 0, -1)
        return [found[n : n + _AT_ONCE] for n in range(0, len(found), _AT_ONCE)]

    def _full_of(self, base: bytes) -> str:
        kind, name, _ = base.decode().removeprefix(self._keys.limit("")).split(":", 2)
        return f"{kind}:{name}"


def _full(kind: str, name: str) -> str:
    return f"{kind}:{quote(name, safe='')}"
