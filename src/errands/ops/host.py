"""What ops need of the app, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from errands.broker.client import Client, Clients
from errands.broker.keys import Keys
from errands.broker.limits import Limits
from errands.broker.operations import Reply
from errands.broker.runs import LiveRun
from errands.core.effects import EffectStore
from errands.core.events import Event
from errands.core.secrets import Keyring
from errands.core.signing import Signer
from errands.core.task import Queue
from errands.settings import Settings
from errands.store.engine import Database


class RunLog(Protocol):
    """Live states: Valkey's, or those of this process in inline mode."""

    def record(self, event: Event, *, hop: int = -1, redelivered: bool = False, rules: str = "") -> Reply: ...

    def get(self, run_id: str) -> LiveRun | None: ...

    def get_many(self, run_ids: list[str]) -> dict[str, LiveRun]: ...


class App(Protocol):
    """An `Errands` app, as seen from ops."""

    settings: Settings
    keys: Keys
    keyring: Keyring
    signer: Signer | None
    clients: Clients
    declared_queues: tuple[Queue, ...]
    erasers: list[Callable[[str, list[str]], int | None]]
    conf: Any

    @property
    def live(self) -> RunLog: ...

    @property
    def batches(self) -> Any: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def valkey(self) -> Client: ...

    @property
    def database(self) -> Database: ...

    @property
    def effects(self) -> EffectStore: ...

    @property
    def queue_names(self) -> list[str]: ...

    @property
    def tasks(self) -> Any: ...

    @property
    def backend(self) -> Any: ...

    @property
    def control(self) -> Any: ...

    def connection_for_read(self) -> Any: ...

    def new_id(self) -> str: ...

    def discard_payloads(self, keys: Iterable[str]) -> None: ...

    def acting_as(self, owner: str | None) -> AbstractContextManager[None]: ...

    def prepare(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any: ...

    def rules_of_reopening(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str: ...

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any: ...
