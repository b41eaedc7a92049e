"""What a worker needs of the app, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from errands.broker.runs import LiveRun, Reply, Result
from errands.core.effects import EffectStore
from errands.core.events import Event
from errands.core.limits import Bound, Limit
from errands.core.secrets import Keyring
from errands.settings import Settings
from errands.worker.resources import Resources


class RunLog(Protocol):
    """Where events go and live states come from: Valkey, or the memory of this process in inline mode."""

    def record(
        self,
        event: Event,
        *,
        hop: int = -1,
        redelivered: bool = False,
        copy: bool = False,
        died: bool = False,
        neighbours: bool = False,
        time_limit: float = 0,
        attempt: int | None = None,
        result: Result | None = None,
        rules: str = "",
    ) -> Reply: ...

    def tell(
        self, event: Event, *, hop: int, attempt: int, heard: Callable[[Reply], object], quiet: bool = False,
        wait: bool = False,
    ) -> None: ...  # fmt: skip

    def take(self, name: str, count: int, bound: Bound) -> tuple[int, float]: ...

    def claim(self, run_id: str, asked: dict[str, Any], *, patience: float | None = None) -> Reply: ...

    def check(self, run_id: str, *, hop: int, attempt: int) -> Reply: ...

    def checkpoint(self, run_id: str) -> dict[str, Any] | None: ...

    def get(self, run_id: str) -> LiveRun | None: ...

    def get_many(self, run_ids: list[str]) -> dict[str, LiveRun]: ...

    def known(self, run_id: str) -> bool: ...


class Host(Protocol):
    """The app, as seen from the worker."""

    settings: Settings
    keyring: Keyring
    resources: Resources
    added_limits: dict[str, Limit]

    @property
    def live(self) -> RunLog: ...

    @property
    def effects(self) -> EffectStore: ...

    @property
    def tasks(self) -> Any: ...

    def with_payload(self, task: Any, args: Any, kwargs: Any) -> Any: ...
