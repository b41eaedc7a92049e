"""A task's arguments: checked where the call is made, made JSON, and read back in the worker."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, get_args, get_origin

from pydantic import ConfigDict, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

# pydantic reads typing's own TypedDict from Python 3.12 on.
from typing_extensions import TypedDict

from errands.core.errors import ConfigurationError, InvalidArguments
from errands.core.secrets import Keyring, SecretMarker, is_sealed

_KINDS = inspect.Parameter
_SIMPLE = (_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY)
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Arguments:
    """What may be sent to one task, read off its signature.

    A parameter whose type is a resource is *given* by the worker and is no argument. All others are checked
    against their type hints by pydantic, in its lax mode ("5" is a good int).

    Args:
        task: the task's name, for errors and as the context of sealed values.
        function: the task's function.
        is_resource: tells whether an annotation is given by the worker.
        skip_first: the first parameter is the task itself (`bind=True`).
        aliases: older names of the task, under which a value may have been sealed.

    Raises:
        ConfigurationError: a hint is something that cannot be sent.
    """

    def __init__(
        self,
        task: str,
        function: Callable[..., Any],
        *,
        is_resource: Callable[[Any], bool] = lambda annotation: False,
        skip_first: bool = False,
        aliases: Sequence[str] = (),
    ) -> None:
        self.task = task
        self._contexts = (task, *aliases)
        hints = _hints(task, function)
        parameters = list(inspect.signature(function).parameters.values())[1 if skip_first else 0 :]
        self.resources: dict[str, Any] = {}
        self.secrets: set[str] = set()
        sent: list[inspect.Parameter] = []
        fields: dict[str, Any] = {}
        for parameter in parameters:
            hint = hints.get(parameter.name, Any)
            if is_resource(_bare(hint)):
                self.resources[parameter.name] = _bare(hint)
                continue
            if _bare(hint) in (SecretStr, SecretBytes):
                raise ConfigurationError(
                    f"task {task!r}: parameter {parameter.name!r} would be sent as asterisks; "
                    "annotate it `Secret[str]` instead of pydantic's SecretStr"
                )
            if _is_secret(hint):
                self.secrets.add(parameter.name)
            sent.append(parameter)
            fields[parameter.name] = _field(parameter, hint)
        self._all = parameters
        self._signature = inspect.Signature(sent)
        # A call of these parameters alone is put together by name; `bind` would take longer than the check.
        self._simple = all(parameter.kind in _SIMPLE for parameter in sent)
        self._names = [parameter.name for parameter in sent]
        self._positions = sum(parameter.kind is _KINDS.POSITIONAL_OR_KEYWORD for parameter in sent)
        self._required = {parameter.name for parameter in sent if parameter.default is _KINDS.empty}
        try:
            adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(_typed_dict(task, fields))
            # Without the adapter's own steps around them, which nothing here needs.
            self._validate, self._dump = adapter.validator.validate_python, adapter.serializer.to_python
        except (PydanticSchemaGenerationError, PydanticUserError) as exc:
            raise ConfigurationError(
                f"task {task!r}: a parameter's type can neither be sent as JSON nor is it a resource: "
                f"{str(exc).splitlines()[0]} Annotate it with something pydantic reads, or register the type "
                "with app.provide(…)."
            ) from exc

    def prepare(self, args: Sequence[Any], kwargs: Mapping[str, Any], keyring: Keyring) -> Call:
        """Check a call and make it JSON-ready, its secrets sealed. What was given by position stays so.

        Raises:
            InvalidArguments: the call does not fit; every problem is named.
            SecretError: there is no key to seal with.
        """
        values = self._check(args, kwargs, keyring)
        ready = self._dump(values, mode="json", warnings="none")
        if self.secrets:
            for name in self.secrets & ready.keys():
                ready[name] = keyring.seal(ready[name], self.task)
        return self._rebuild(ready, len(args))

    def restore(self, args: Sequence[Any], kwargs: Mapping[str, Any], keyring: Keyring) -> Call:
        """Read a call back from its message: the same check, secrets opened, values of the hinted types.

        Raises:
            InvalidArguments: the message does not fit this version of the task.
            SecretError: a secret cannot be opened.
        """
        return self._rebuild(self._check(args, kwargs, keyring), len(args))

    def seal(self, kwargs: Mapping[str, Any], keyring: Keyring) -> dict[str, Any]:
        """`kwargs` with its secrets sealed; those that are sealed already stay as they are."""
        return {
            name: keyring.seal(value, self.task) if name in self.secrets and not is_sealed(value) else value
            for name, value in kwargs.items()
        }

    def secrets_by_position(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> set[str]:
        """The secrets that unsealed positional `args` might become: a chain may put one value before them."""
        names = [p.name for p in self._signature.parameters.values() if p.kind is not _KINDS.KEYWORD_ONLY]
        reached = {
            name
            for index, value in enumerate(args)
            if not is_sealed(value)
            for name in names[index : index + 2]
        }
        return (reached & self.secrets) - kwargs.keys()

    def opened(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        """The texts of the secrets among restored arguments, to keep them out of errors."""
        bound = self.named(args, kwargs)
        return [str(bound[name]) for name in self.secrets if name in bound]

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """A call, complete or not, by parameter names."""
        return dict(self._signature.bind_partial(*args, **kwargs).arguments)

    def merge(self, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> Call:
        """The whole call: restored arguments and given resources, each where the function expects it."""
        bound = self._signature.bind(*args, **kwargs)
        values = {**bound.arguments, **given}
        variadic = next((p.name for p in self._all if p.kind is _KINDS.VAR_POSITIONAL), None)
        all_by_position = variadic is not None and bool(values.get(variadic))
        full: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self._all:
            name = parameter.name
            if parameter.kind is _KINDS.VAR_POSITIONAL:
                full.extend(values.get(name, ()))
            elif parameter.kind is _KINDS.VAR_KEYWORD:
                named.update(values.get(name, {}))
            elif parameter.kind is _KINDS.POSITIONAL_ONLY or (
                all_by_position and parameter.kind is _KINDS.POSITIONAL_OR_KEYWORD
            ):
                full.append(values.get(name, parameter.default))
            elif name in values:
                named[name] = values[name]
        return tuple(full), named

    def _check(self, args: Sequence[Any], kwargs: Mapping[str, Any], keyring: Keyring) -> dict[str, Any]:
        values = self._by_name(args, kwargs)
        if self.secrets:
            for name in self.secrets & values.keys():
                if is_sealed(values[name]):
                    values[name] = keyring.open(values[name], *self._contexts)
        try:
            return typing.cast("dict[str, Any]", self._validate(values))
        except ValidationError as exc:
            raise InvalidArguments(
                self.task, [_problem(error, self.secrets) for error in exc.errors()]
            ) from None

    def _by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self._simple and len(args) <= self._positions:
            values = dict(zip(self._names, args, strict=False))
            if not kwargs:
                if len(values) == len(self._names) or self._required <= values.keys():
                    return values
            elif not values.keys() & kwargs.keys():
                values.update(kwargs)
                if self._required <= values.keys() and values.keys() <= self._signature.parameters.keys():
                    return values
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as exc:
            raise InvalidArguments(self.task, [f"{exc} (it takes {self._signature})"]) from None

    def _rebuild(self, values: dict[str, Any], positional: int) -> Call:
        if self._simple:
            by_position = tuple([values.pop(name) for name in self._names[:positional]])
            return by_position, values
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            if parameter.name not in values:
                continue
            value = values[parameter.name]
            if parameter.kind is _KINDS.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is _KINDS.VAR_KEYWORD:
                kwargs.update(value)
            elif len(args) < positional and parameter.kind is not _KINDS.KEYWORD_ONLY:
                args.append(value)
            else:
                kwargs[parameter.name] = value
        return tuple(args), kwargs


def _hints(task: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise ConfigurationError(
            f"task {task!r}: the type hint {exc.name!r} cannot be found at run time; "
            "import it outside of `if TYPE_CHECKING`"
        ) from exc


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_secret(hint: Any) -> bool:
    return get_origin(hint) is Annotated and any(
        isinstance(item, SecretMarker) or item is SecretMarker for item in get_args(hint)[1:]
    )


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    if isinstance(_bare(hint), typing.TypeVar):  # a bare `Secret`, without [str]
        hint = Any
    if parameter.kind is _KINDS.VAR_POSITIONAL:
        return NotRequired[tuple[hint, ...]]
    if parameter.kind is _KINDS.VAR_KEYWORD:
        return NotRequired[dict[str, hint]]
    return hint if parameter.default is _KINDS.empty else NotRequired[hint]


def _typed_dict(task: str, fields: dict[str, Any]) -> Any:
    shape = TypedDict(f"arguments of {task}", fields)  # type: ignore[misc]
    shape.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return shape


def _problem(error: Any, secrets: set[str]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    secret = error["loc"] and error["loc"][0] in secrets
    got = "" if secret or error["type"] == "missing" else f", got {str(error['input'])[:80]!r}"
    return f"{where}: {error['msg']}{got}"
