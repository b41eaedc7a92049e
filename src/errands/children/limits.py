"""How much a call in a child process may take."""

from __future__ import annotations

from dataclasses import dataclass

from errands.core.errors import ConfigurationError

MIB = 1024 * 1024

_LEAST_MEMORY = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one child process may take.

    Args:
        memory: bytes that it may have for itself (RLIMIT_DATA), the interpreter's own 10 to 20 MiB included;
            64 MiB or more. What it answers may not be larger either.
        seconds: of wall clock for one call, from the moment it has a process.
        cpu_seconds: of processor time for one call, in all its threads; part seconds are rounded up.
        calls: after so many, the process is replaced.
        keep: bytes of resident memory above which it is replaced after a call; half of `memory` by default.
        idle: seconds without a call after which it ends and frees what it holds.
        programs: whether it may start other programs. They share its limits, each with a count of its own.

    Raises:
        ConfigurationError: a limit is too small to work with.
    """

    memory: int = 512 * MIB
    seconds: float = 60.0
    cpu_seconds: float = 60.0
    calls: int = 200
    keep: int | None = None
    idle: float = 60.0
    programs: bool = False

    def __post_init__(self) -> None:
        if self.memory < _LEAST_MEMORY:
            raise ConfigurationError(f"Limits(memory={self.memory}): an interpreter needs 64 MiB or more")
        for name in ("seconds", "cpu_seconds", "calls", "idle"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"Limits({name}={getattr(self, name)}): give more than 0")

    @property
    def replaced_above(self) -> int:
        """Bytes of resident memory above which a process is replaced."""
        return self.memory // 2 if self.keep is None else self.keep
