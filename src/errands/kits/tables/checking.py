"""Row by row validation by a pydantic model of the application, with every reason of a row."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from errands import ConfigurationError
from errands.core.secrets import MASK, SecretMarker, scrub
from errands.kits.tables.cells import shortened
from errands.kits.tables.raw import RawRow, Reason

M = TypeVar("M", bound=BaseModel)
Key = tuple[Any, ...]

_MOST_REASONS = 20  # of one row
_MOST_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is good.

    Attributes:
        number: in the file.
        key: the values of its natural key.
        values: all its values by field, defaults included.
        given: the fields that the file gave; an update changes no others.
    """

    number: int
    key: Key
    values: dict[str, Any]
    given: frozenset[str]


class Checker(Generic[M]):
    """Tells good rows from bad ones.

    Args:
        model: what a row must be.
        key: the fields that tell rows apart.
        secret: fields whose values nobody is shown, besides those that their type says it of.
        check: a further rule: gets the row, returns what is wrong with it or None.
        values: makes the values to be written of a good row; by default its fields.

    Raises:
        ConfigurationError: a field that there is not.
    """

    def __init__(
        self,
        model: type[M],
        key: tuple[str, ...],
        *,
        secret: Iterable[str] = (),
        check: Callable[[M], str | None] | None = None,
        values: Callable[[M], dict[str, Any]] | None = None,
    ) -> None:
        fields = model.model_fields
        self._own = frozenset(secret)
        for name in (*key, *self._own):
            if name not in fields:
                raise ConfigurationError(
                    f"{model.__name__} has no field {name!r}; it has {', '.join(fields)}"
                )
        if not key:
            raise ConfigurationError(f"{model.__name__}: name the field that tells rows apart (key=…)")
        self.fields = list(fields)
        self.required = [name for name, field in fields.items() if field.is_required()]
        self.secret = self._own | {name for name, field in fields.items() if _is_secret(field)}
        self._wrapped = [name for name, field in fields.items() if _holds(field.annotation, _WRAPPERS)]
        self._names = {alias: name for name, field in fields.items() for alias in _aliases(field)}
        self._model, self._key, self._check, self._values = model, key, check, values

    def __call__(self, raw: RawRow) -> Row | list[Reason]:
        """The row, or why it is refused."""
        if raw.reasons:
            return [self._masked(reason, raw.values) for reason in raw.reasons[:_MOST_REASONS]]
        try:
            row = self._model.model_validate(raw.values, by_alias=False, by_name=True)
        except ValidationError as error:
            return [self._reason(problem, raw.values) for problem in error.errors()[:_MOST_REASONS]]
        except RecursionError:
            return [Reason(None, None, "lists and objects lie too deep in each other")]
        if self._check is not None and (text := self._check(row)) is not None:
            return [self._masked(Reason(None, None, text), raw.values)]
        values = row.model_dump() if self._values is None else self._values(row)
        for name in self._wrapped:
            if isinstance(wrapped := values.get(name), SecretStr | SecretBytes):
                values[name] = wrapped.get_secret_value()
        given = row.model_fields_set
        if self._values is not None:  # what it adds is given, whatever it was made of
            given = {name for name in values if name in given or name not in self._names.values()}
        key = tuple([values[name] for name in self._key])
        if None in key:
            return [Reason(None, None, f"{', '.join(self._key)} tells rows apart, and is empty")]
        return Row(raw.number, key, values, frozenset(given))

    def hidden(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with `***` in place of the secret ones."""
        return {name: MASK if name in self.secret else value for name, value in values.items()}

    def _reason(self, problem: Any, values: Mapping[str, Any]) -> Reason:
        place = [str(part) for part in problem["loc"]]
        if place:
            place[0] = self._names.get(place[0], place[0])
        value = problem["input"]
        shown = None
        if place and problem["type"] != "missing" and isinstance(value, str | int | float | bool):
            shown = shortened(str(value))
        # Pydantic's own words before what a validator of the application says.
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return self._masked(Reason(".".join(place)[:200] or None, shown, message), values)

    def _masked(self, reason: Reason, values: Mapping[str, Any]) -> Reason:
        message = reason.message
        if self.secret:
            message = scrub(message, [str(values[name]) for name in self.secret if values.get(name)])
        value = reason.value
        if value is not None and reason.field is not None and reason.field.split(".")[0] in self.secret:
            value = MASK
        return Reason(reason.field, value, shortened(message, _MOST_MESSAGE))


_WRAPPERS = (SecretStr, SecretBytes)


def _is_secret(field: FieldInfo) -> bool:
    return _holds(field.annotation, _WRAPPERS) or any(isinstance(m, SecretMarker) for m in field.metadata)


def _holds(annotation: Any, kinds: tuple[type, ...]) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_holds(part, kinds) for part in get_args(annotation))
    return annotation in kinds


def _aliases(field: FieldInfo) -> list[str]:
    found: list[str] = []
    for alias in (field.alias, field.validation_alias):
        if isinstance(alias, AliasChoices):
            found += [choice for choice in alias.choices if isinstance(choice, str)]
        elif isinstance(alias, str):
            found.append(alias)
    return found
