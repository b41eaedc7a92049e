"""What a task is given and never sent: a database session, the mailer, storage, the run itself."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from errands.core.errors import ConfigurationError
from errands.worker.run import Run

T = TypeVar("T")
Scope = Literal["run", "process"]


@dataclass(frozen=True, slots=True)
class _Provider:
    factory: Callable[..., Any]
    scope: Scope
    takes_run: bool


class Resources:
    """The registry of resources by type, and the instances that live as long as the process."""

    def __init__(self) -> None:
        self._providers: dict[Any, _Provider] = {}
        self._instances: dict[Any, Any] = {}
        self._owner = os.getpid()
        self._lock = threading.RLock()

    def provide(self, kind: type[Any] | str, factory: Callable[..., Any], *, scope: Scope = "run") -> None:
        """Say how resources of type `kind` are made. A later call for the same type replaces the former.

        Args:
            kind: the type that tasks name in their signature; or where it is defined
                (`package.module.Type`), for one that is imported only where a task names it. Under the type
                itself a resource goes before one under its name.
            factory: called without arguments, or with the `Run` if it takes one. With scope "process" it
                returns the resource, which is made once a process and closed at its end (`aclose` or
                `close`, if it has one). With scope "run" it returns a context manager (or an asynchronous
                one, for `async def` tasks), entered around each attempt, which sees the attempt's error.

        Raises:
            ConfigurationError: the scope is unknown, or a factory of scope "process" wants the run.
        """
        if scope not in ("run", "process"):
            raise ConfigurationError(
                f'resource {_name(kind)}: the scope is "run" or "process", not {scope!r}'
            )
        takes_run = bool(_required(factory))
        if scope == "process" and takes_run:
            raise ConfigurationError(f'resource {_name(kind)}: of scope "process", it cannot depend on a run')
        self._providers[kind] = _Provider(factory, scope, takes_run)
        self._instances.pop(kind, None)

    def has(self, kind: Any) -> bool:
        """Whether `kind` is a resource."""
        if kind is Run:
            return True
        try:
            return self._provider(kind) is not None
        except TypeError:  # an unhashable annotation
            return False

    def instance(self, kind: type[T]) -> T:
        """The process's own instance of a resource of scope "process", for code outside of tasks.

        Raises:
            ConfigurationError: nothing of this type is registered, or it lives only as long as a run.
        """
        provider = self._provider(kind)
        if provider is None or provider.scope != "process":
            raise ConfigurationError(f'no resource {_name(kind)} of scope "process" is registered')
        with self._lock:
            if self._owner != os.getpid():  # connections are not shared over a fork
                self._instances, self._owner = {}, os.getpid()
            if kind not in self._instances:
                self._instances[kind] = provider.factory()
            made: T = self._instances[kind]
            return made

    @contextmanager
    def replaced(self, kind: Any, instance: Any) -> Iterator[None]:
        """Inside the block, `instance` is what is given for `kind`. For tests."""
        before, made = self._providers.get(kind), self._instances.pop(kind, None)
        self._providers[kind] = _Provider(lambda: instance, "process", takes_run=False)
        try:
            yield
        finally:
            self._instances.pop(kind, None)
            if before is None:
                del self._providers[kind]
            else:
                self._providers[kind] = before
            if made is not None:
                self._instances[kind] = made

    @contextmanager
    def given(self, wanted: Mapping[str, Any], run: Run) -> Iterator[dict[str, Any]]:
        """The resources a plain task asked for, by parameter name, for the length of the block."""
        with ExitStack() as stack:
            values: dict[str, Any] = {}
            for name, kind in wanted.items():
                made = self._make(kind, run)
                if isinstance(made, AbstractContextManager) and self._is_run_scoped(kind):
                    values[name] = stack.enter_context(made)
                elif isinstance(made, AbstractAsyncContextManager) and self._is_run_scoped(kind):
                    raise ConfigurationError(
                        f"task {run.task!r}: {_name(kind)} is for `async def` tasks; make the task one, or "
                        "ask for the synchronous kind"
                    )
                else:
                    values[name] = made
            yield values

    @asynccontextmanager
    async def given_async(self, wanted: Mapping[str, Any], run: Run) -> AsyncIterator[dict[str, Any]]:
        """The same for an `async def` task."""
        async with AsyncExitStack() as stack:
            values: dict[str, Any] = {}
            for name, kind in wanted.items():
                made = self._make(kind, run)
                if not self._is_run_scoped(kind):
                    values[name] = made
                elif isinstance(made, AbstractAsyncContextManager):
                    values[name] = await stack.enter_async_context(made)
                else:
                    values[name] = stack.enter_context(made)
            yield values

    async def aclose(self) -> None:
        """Close the instances of this process, newest first."""
        instances = list(self._instances.values()) if self._owner == os.getpid() else []
        self._instances = {}
        for made in reversed(instances):
            close = getattr(made, "aclose", None) or getattr(made, "close", None)
            if close is not None:
                closing = close()
                if inspect.isawaitable(closing):
                    await closing

    def _provider(self, kind: Any) -> _Provider | None:
        found = self._providers.get(kind)
        if found is None and isinstance(kind, type):
            found = self._providers.get(f"{kind.__module__}.{kind.__qualname__}")
        return found

    def _known(self, kind: Any) -> _Provider:
        provider = self._provider(kind)
        if provider is None:
            raise ConfigurationError(f"no resource {_name(kind)} is registered")
        return provider

    def _is_run_scoped(self, kind: Any) -> bool:
        return kind is not Run and self._known(kind).scope == "run"

    def _make(self, kind: Any, run: Run) -> Any:
        if kind is Run:
            return run
        provider = self._known(kind)
        if provider.scope == "process":
            return self.instance(kind)
        return provider.factory(run) if provider.takes_run else provider.factory()


def _required(factory: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some built-in types have no signature to read
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]


def _name(kind: Any) -> str:
    return getattr(kind, "__qualname__", repr(kind))
