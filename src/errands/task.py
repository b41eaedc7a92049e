"""The task class: Celery's, with arguments that are checked where the call is made."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, get_type_hints

import celery
from celery.result import AsyncResult

from errands.core.arguments import Arguments
from errands.core.declaring import check_rules
from errands.core.errors import InvalidArguments
from errands.core.task import Rules
from errands.store.sessions import is_session
from errands.worker import admission, execution, settling
from errands.worker.celery_stacks import share_stack

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

P = ParamSpec("P")
R = TypeVar("R")


class Task(celery.Task, Generic[P, R]):
    """What `@app.task` makes of a function.

    Everything that Celery's task can do, it can do: `delay`, `apply_async`, `s`, `si`, `retry`, `apply`.
    Called like a function, it *is* the function: resources are passed by the caller, nothing is sent, and an
    `async def` returns its coroutine.
    """

    abstract = True
    Request = "errands.worker.request:Request"
    Strategy = "errands.worker.strategy:default"
    rules = Rules()
    function: Any = None  # None: a task of Celery itself
    is_async = False
    takes_itself = False

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @property
    def __trace__(self) -> Any:
        """What Celery runs for each message of this task; it makes it when a worker starts."""
        return self.__dict__.get("__trace__")

    @__trace__.setter
    def __trace__(self, tracer: Any) -> None:
        self.__dict__["__trace__"] = admission.quiet(tracer) if tracer and self.rules.of_starts else tracer

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Celery calls this when the task joins an app, however it was declared: put our steps around it."""
        share_stack(cls.request_stack)
        run = cls.__dict__.get("run")
        if run is None or "function" in cls.__dict__ or cls.name.startswith("celery."):
            return
        cls.takes_itself = not isinstance(run, staticmethod)
        function = run.__func__ if isinstance(run, staticmethod) else run
        cls.function = staticmethod(function)
        cls.is_async = inspect.iscoroutinefunction(function)
        cls.typing = False  # the check against the type hints says more, and knows of resources
        cls.run = _bridge(function, takes_itself=cls.takes_itself)
        check_rules(cls.name, cls.rules, function, skip_first=cls.takes_itself)

    @cached_property
    def arguments(self) -> Arguments:
        """What may be sent to this task."""
        found = Arguments(
            self.name, self.function, is_resource=self.app.resources.has, skip_first=self.takes_itself,
            aliases=self.rules.aliases,
        )  # fmt: skip
        # Only now it is known which parameters are given by the worker, and what lies deep inside of others.
        self.rules.check(self.name, found.names, found.secrets, found.hints)
        return found

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        owner: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send a run, as Celery's `apply_async` does, with its arguments checked here and now.

        Args:
            args, kwargs: the task's arguments, without its resources.
            task_id: the run's id; a new UUIDv7 by default. A run with a known id is not sent twice.
            owner: whose run it is; by default the person that `app.acting_as` names, or, within a task, the
                owner of the run that sends it.
            options: Celery's own (`countdown`, `eta`, `expires`, `queue`, `priority`, `link`, …).

        Raises:
            InvalidArguments: the arguments do not fit the type hints.
            PayloadTooLarge: they weigh more than `Settings.payload_max`.
            BrokerUnavailable: the broker did not take the message within 250 ms. Nothing was accepted, or,
                where the broker took it and did not answer, nobody knows: the text says which.
        """
        if self.function is None:
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        result: AsyncResult = self.app.send_call(self, args, kwargs, task_id, owner, options)
        return result

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run here and now, as Celery's `apply`; Celery's canvas does so inline. What a run starts is its
        owner's, here as anywhere."""
        headers = options.get("headers") or {}
        if self.function is not None and "errands" not in headers:
            options["headers"] = self.app.envelope(headers, options.get("task_id"), None)
        return super().apply(args, kwargs, **options)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        owner: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """`apply_async` for asyncio code: the loop goes on while the broker answers.

        What one turn of the loop sends goes to the broker together, in one call.
        """
        result: AsyncResult = await self.app.asend_call(self, args, kwargs, task_id, owner, options)
        return result

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """`delay` for asyncio code: the loop goes on while the broker answers."""
        return await self.aapply_async(args, kwargs)

    def delay_many(
        self, calls: Iterable[Any], *, chunk: int = 500, owner: str | None = None, **options: Any
    ) -> list[str]:
        """Send many runs, a chunk at a time, each chunk in one round trip.

        Args:
            calls: one item for each run: a tuple or list of arguments, a mapping of named ones, or a
                signature of this task (for both, or for options of its own, such as a `task_id`). Any
                iterable: it is read a chunk at a time, so a generator of a million calls needs little memory.
            chunk: how many go together. All of them are checked before the first of them is sent; the
                next ones are read while the broker takes these. Large messages go in smaller chunks.
            owner: whose runs they are, as in `apply_async`.
            options: for all of them, as in `apply_async`.

        Returns:
            The runs' ids, in the order of the calls.

        Raises:
            InvalidArguments, PayloadTooLarge, SecretError: a call is wrong. The text says which, counted from
                0, and how many before it were accepted; of its own chunk none was.
            BrokerUnavailable: the broker did not take a chunk. The text says which, and how many calls were
                accepted before it.
        """
        ids: list[str] = self.app.send_many(self, calls, chunk, owner, options)
        return ids

    async def adelay_many(
        self, calls: Iterable[Any], *, chunk: int = 500, owner: str | None = None, **options: Any
    ) -> list[str]:
        """`delay_many` for asyncio code."""
        ids: list[str] = await self.app.asend_many(self, calls, chunk, owner, options)
        return ids

    def run_with_db(self, session: Session | AsyncSession, /, *args: Any, **kwargs: Any) -> R:
        """Call the function with a session of one's own, and no broker. For tests of `task_with_db`."""
        given = {name: session for name, kind in self.arguments.resources.items() if is_session(kind)}
        full, named = self.arguments.merge(args, kwargs, given)
        result: R = self.function(*((self,) if self.takes_itself else ()), *full, **named)
        return result

    def delay_on_commit(self, session: Session | AsyncSession, /, *args: Any, **kwargs: Any) -> str:
        """Send a run when `session` commits; if it rolls back, nothing is sent.

        The run is a row in the same transaction, so a crash after the commit cannot lose it.

        Returns:
            The run's id, known at once.
        """
        return self.apply_on_commit(session, args, kwargs)

    def apply_on_commit(
        self,
        session: Session | AsyncSession,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        owner: str | None = None,
        **options: Any,
    ) -> str:
        """`delay_on_commit` with options: those of `apply_async` that are JSON (`countdown`, `queue`, …)."""
        ready = self.app.prepare(self, args, kwargs or {})
        eta = options.get("eta")
        if isinstance(eta, datetime):
            options["eta"] = eta.astimezone(UTC).isoformat()
        return str(
            self.app.send_on_commit(session, self.name, *ready, task_id=task_id, owner=owner, **options)
        )

    def delay_many_on_commit(
        self,
        session: Session | AsyncSession,
        calls: Iterable[Any],
        *,
        owner: str | None = None,
        **options: Any,
    ) -> list[str]:
        """Send many runs when `session` commits, in bulk.

        Args:
            session: as in `delay_on_commit`. A `Session` writes the rows as they come, a thousand at a time;
                an `AsyncSession` holds them until it flushes.
            calls: as in `delay_many`: any iterable.
            owner, options: for all of them, as in `apply_on_commit`.

        Returns:
            The runs' ids, in the order of the calls, known at once.

        Raises:
            InvalidArguments, PayloadTooLarge, SecretError: a call is wrong; the text says which, counted
                from 0. Roll the transaction back, or the calls before it are sent.
        """
        ids: list[str] = self.app.send_many_on_commit(session, self, calls, owner, options)
        return ids

    def signature(self, args: Any = None, kwargs: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """A signature; secret arguments are sealed in it, since a chain carries it in other runs' messages.

        Raises:
            InvalidArguments: a secret is given by position, where nobody can tell yet which it will be.
        """
        if self.function is not None and self.arguments.secrets:
            args, kwargs = args or (), kwargs or {}
            request = self.request  # a retry's arguments are those of the message, and sealed already
            by_position = args is not request.args and self.arguments.secrets_by_position(args, kwargs)
            if by_position:
                names = ", ".join(sorted(by_position))
                raise InvalidArguments(self.name, [f"{names}: give a secret by keyword in a signature"])
            if kwargs is not request.kwargs:
                kwargs = self.app.seal(self, kwargs)
        return super().signature(args, kwargs, *starargs, **starkwargs)

    subtask = signature

    def map(self, it: Any) -> Any:
        """As Celery's. Of a task with secrets it is refused: they would be open in another task's message."""
        self._refuse_secrets("map")
        return super().map(it)

    def starmap(self, it: Any) -> Any:
        """As Celery's; as `map`."""
        self._refuse_secrets("starmap")
        return super().starmap(it)

    def chunks(self, it: Any, n: int) -> Any:
        """As Celery's; as `map`."""
        self._refuse_secrets("chunks")
        return super().chunks(it, n)

    def _refuse_secrets(self, way: str) -> None:
        if self.function is not None and self.arguments.secrets:
            names = ", ".join(sorted(self.arguments.secrets))
            raise InvalidArguments(self.name, [f"{names}: {way} cannot seal them; use delay_many"])

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Celery calls this when another attempt was sent. Overriding it, call it as well."""
        if einfo is not None:  # else the worker is stopping, and `Request.cancel` tells it
            reason = einfo.exception
            settling.settle(self, "RETRY", getattr(reason, "exc", reason), task_id)

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Celery calls this when an attempt's result is stored. Overriding it, call it as well."""
        settling.settle(self, status, retval, task_id)


def session_parameter(function: Callable[..., Any], *, skip_first: bool = False) -> str | None:
    """The name of the first parameter, if it is annotated as a database session."""
    hints = get_type_hints(function)
    names = list(inspect.signature(function).parameters)[1 if skip_first else 0 :]
    return names[0] if names and is_session(hints.get(names[0])) else None


def _bridge(function: Callable[..., Any], *, takes_itself: bool) -> Callable[..., Any]:
    """What Celery runs in place of `function`: the steps of an attempt, or, called directly, the function."""

    @functools.wraps(function)
    def run(self: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        request = self.request
        if request.called_directly:
            return function(self, *args, **kwargs) if takes_itself else function(*args, **kwargs)
        return execution.attempt(self, request, args, kwargs)

    return run
