"""A task's arguments: checked where the call is made, made JSON, and read back in the worker."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any, NotRequired, get_args, get_origin

from pydantic import ConfigDict, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

# pydantic reads typing's own TypedDict from Python 3.12 on.
from typing_extensions import TypedDict

from errands.core.errors import ConfigurationError, InvalidArguments
from errands.core.paths import values_of
from errands.core.payloads import FIELD
from errands.core.personal import SubjectMarker
from errands.core.sealing import HIDDEN, Sealing, Unsealable, holds_marks
from errands.core.secrets import Keyring, SecretMarker, is_sealed, scrub

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
        self.subject: str | None = None
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
            if any(isinstance(mark, SubjectMarker) for mark in _marks(hint)):
                self.subject = _only_subject(task, parameter, hint, self.subject)
            sent.append(parameter)
            fields[parameter.name] = _field(parameter, hint)
        self._all, self._fields = parameters, fields
        self._signature = inspect.Signature(sent)
        # A call of these parameters alone is put together by name; `bind` would take longer than the check.
        self._simple = all(parameter.kind in _SIMPLE for parameter in sent)
        self.names = [parameter.name for parameter in sent]
        self.hints = values_of(sent, hints)
        self._positions = sum(parameter.kind is _KINDS.POSITIONAL_OR_KEYWORD for parameter in sent)
        self._required = {parameter.name for parameter in sent if parameter.default is _KINDS.empty}
        try:
            adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(_typed_dict(task, fields))
            # Without the adapter's own steps around them, which nothing here needs.
            self._validate, self._dump = adapter.validator.validate_python, adapter.serializer.to_python
            self.secrets = _sealed(task, adapter.core_schema)
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
        if not args and not kwargs and not self._required:
            return (), {}
        sealing = Sealing(keyring, self._contexts, []) if self.secrets else None
        values = self._check(args, kwargs, sealing)
        if sealing is None:
            ready = self._dump(values, mode="json", warnings="none")
        else:
            ready = _sealed_json(self._dump, values, sealing)
        return self._rebuild(ready, len(args))

    def restore(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        keyring: Keyring,
        opened: list[str] | None = None,
    ) -> Call:
        """Read a call back from its message: the same check, secrets opened, values of the hinted types.

        Args:
            args, kwargs: as the message has them.
            keyring: opens what is sealed.
            opened: takes the texts of all that was secret, to keep them out of errors.

        Raises:
            InvalidArguments: the message does not fit this version of the task.
            SecretError: a secret cannot be opened.
        """
        if not args and not kwargs and not self._required:
            return (), {}
        sealing = None
        if self.secrets:
            sealing = Sealing(keyring, self._contexts, [] if opened is None else opened)
        return self._rebuild(self._check(args, kwargs, sealing), len(args))

    def subject_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The id of the person whom a call is about, as its `Subject` argument says; None where none does."""
        if self.subject is None:
            return None
        found = self.value(self.subject, args, kwargs)
        return None if found is None else str(found)[:255]

    def compared(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """A prepared call by parameter names, with defaults, without secrets: what tells it from others."""
        values = {**self._defaults, **self.named(args, {n: v for n, v in kwargs.items() if n != FIELD})}
        return {name: value for name, value in values.items() if name not in self.secrets}

    def value(self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a call, checked or not, has at a dotted path, or else the default; None for nothing."""
        name, *more = path.split(".")
        if name in kwargs:
            found = kwargs[name]
        elif self._simple and name in self.names[: min(len(args), self._positions)]:
            found = args[self.names.index(name)]
        else:
            try:
                found = self.compared(args, kwargs).get(name)
            except TypeError:  # the call does not fit, and the worker will say so
                return None
        for step in more:
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    def seal(self, kwargs: Mapping[str, Any], keyring: Keyring) -> dict[str, Any]:
        """`kwargs` with its secrets sealed; those that are sealed already stay as they are."""
        return {
            name: value if is_sealed(value) else self._sealed_value(name, value, keyring)
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

    def _sealed_value(self, name: str, value: Any, keyring: Keyring) -> Any:
        rest = next((p.name for p in self._all if p.kind is _KINDS.VAR_KEYWORD), "")
        field = name if name in self._fields else rest
        if field not in self.secrets:
            return value
        adapter: TypeAdapter[Any] = TypeAdapter(_typed_dict(self.task, {field: self._fields[field]}))
        sealing = Sealing(keyring, self._contexts, [])
        try:
            whole = adapter.validate_python(
                {field: {name: value} if field == rest else value}, context=sealing
            )
        except ValidationError as exc:
            raise self._misfit(exc, sealing) from None
        ready = _sealed_json(adapter.serializer.to_python, whole, sealing)[field]
        return ready[name] if field == rest else ready

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

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        """The defaults as a prepared call has them: those that fit their hints as if they had been passed."""
        found: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            if parameter.default is not _KINDS.empty and parameter.name not in self.secrets:
                name, value = parameter.name, {parameter.name: parameter.default}
                adapter: TypeAdapter[Any] = TypeAdapter(_typed_dict(self.task, {name: self._fields[name]}))
                with suppress(ValidationError):
                    value = adapter.validate_python(value)
                found |= adapter.dump_python(value, mode="json", warnings="none")
        return found

    def _check(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], sealing: Sealing | None
    ) -> dict[str, Any]:
        values = self._by_name(args, kwargs)
        try:
            if sealing is None:
                return typing.cast("dict[str, Any]", self._validate(values))
            return typing.cast("dict[str, Any]", self._validate(values, context=sealing))
        except ValidationError as exc:
            raise self._misfit(exc, sealing) from None

    def _misfit(self, error: ValidationError, sealing: Sealing | None) -> InvalidArguments:
        problems = [_problem(each, self.secrets) for each in error.errors()]
        if sealing is not None:
            problems = [scrub(problem, sealing.opened) for problem in problems]
        return InvalidArguments(self.task, problems)

    def _by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self._simple and len(args) <= self._positions:
            values = dict(zip(self.names, args, strict=False))
            if not kwargs:
                if len(values) == len(self.names) or self._required <= values.keys():
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
            by_position = tuple([values.pop(name) for name in self.names[:positional]])
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


def secrets_among(hints: Mapping[str, Any]) -> set[str]:
    """The names of those parameters that are secret as a whole."""
    return {name for name, hint in hints.items() if _is_secret(hint)}


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


def _marks(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _is_secret(hint: Any) -> bool:
    return any(
        isinstance(item, SecretMarker) or (isinstance(item, type) and issubclass(item, SecretMarker))
        for item in _marks(hint)
    )


def _only_subject(task: str, parameter: inspect.Parameter, hint: Any, known: str | None) -> str:
    """The name of the parameter that says whom a call is about: there is one, it is read by others."""
    if known is not None:
        raise ConfigurationError(
            f"task {task!r}: both {known!r} and {parameter.name!r} are a Subject: a run is about one person; "
            "mark the one, and start the run as the other (`owner`)"
        )
    if _is_secret(hint) or parameter.kind not in _SIMPLE:
        raise ConfigurationError(
            f"task {task!r}: {parameter.name!r} is a Subject: a plain id, neither sealed nor one of many"
        )
    return parameter.name


def _sealed(task: str, schema: Any) -> set[str]:
    """The names of the parameters in which something is sealed."""
    definitions = {each["ref"]: each for each in schema.get("definitions", ())}
    while schema["type"] != "typed-dict":
        schema = schema["schema"] if "schema" in schema else definitions[schema["schema_ref"]]
    found = set()
    for name, field in schema["fields"].items():
        try:
            if holds_marks(field, definitions):
                found.add(name)
        except Unsealable as exc:
            raise ConfigurationError(f"task {task!r}: parameter {name!r}: {exc}") from exc
    return found


def _sealed_json(dump: Any, values: Any, sealing: Sealing) -> Any:
    try:
        return dump(values, mode="json", warnings="none", context=sealing)
    except PydanticSerializationError:
        if sealing.failed is not None:
            raise sealing.failed from None
        raise


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    if isinstance(_bare(hint), typing.TypeVar):  # a bare `Secret`, without [str]
        hint = Annotated[(Any, *_marks(hint))]
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
    secret = error["type"] == HIDDEN or (error["loc"] and error["loc"][0] in secrets)
    got = "" if secret or error["type"] == "missing" else f", got {str(error['input'])[:80]!r}"
    return f"{where}: {error['msg']}{got}"
