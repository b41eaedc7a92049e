"""Dotted paths into arguments (`"order.shop"`), held against type hints: can anything be at the end?"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from typing_extensions import is_typeddict

# As JSON these are a text, a number or a list: nothing in them has a name.
_NOTHING_INSIDE = (
    str, bytes, int, float, Decimal, date, datetime, time, timedelta, UUID, Enum, Sequence, AbstractSet,
)  # fmt: skip


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The type hints of a function's parameters, as far as they can be read by now."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}  # `Arguments` says what is wrong with them
    return {name: hint for name, hint in hints.items() if name != "return"}


def values_of(parameters: Iterable[inspect.Parameter], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The types of whole arguments: all that comes by `*args` is one, and all that comes by `**kwargs`."""
    around: dict[Any, Any] = {inspect.Parameter.VAR_POSITIONAL: tuple, inspect.Parameter.VAR_KEYWORD: dict}
    return {each.name: around.get(each.kind, hints[each.name]) for each in parameters if each.name in hints}


def dead_end(path: str, hints: Mapping[str, Any]) -> str | None:
    """Why nothing can ever be at the end of a path; None where something may be, or nobody can tell.

    Args:
        path: the name of an argument, and then names inside of it, with dots.
        hints: type hints by the arguments' names.
    """
    name, *steps = path.split(".")
    return _look(hints.get(name, Any), steps)


def _look(hint: Any, steps: list[str]) -> str | None:
    if not steps:
        return None
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        changed = any(hasattr(mark, "__get_pydantic_core_schema__") for mark in marks)  # a serializer, say
        return None if changed else _look(inner, steps)
    if get_origin(hint) in (Union, types.UnionType):
        found = [_look(each, steps) for each in get_args(hint) if each is not type(None)]
        return None if None in found else next(iter(found), None)
    kind = get_origin(hint) or hint
    if not isinstance(kind, type):
        return None
    fields = _fields_of(kind)
    if fields is not None:
        if steps[0] in fields:
            return _look(fields[steps[0]], steps[1:])
        return f"{kind.__name__} has no {steps[0]!r}; it has {', '.join(fields) or 'nothing'}"
    if issubclass(kind, _NOTHING_INSIDE):
        return f"there is no {steps[0]!r} in a value of type {kind.__name__}"
    return None


def _fields_of(kind: type) -> Mapping[str, Any] | None:
    """The names that a value of this type has as JSON, and their types; None where nobody can tell."""
    model = getattr(kind, "model_fields", None)
    decorators: Any = getattr(kind, "__pydantic_decorators__", None)
    if isinstance(model, Mapping):  # pydantic's
        if _is_changed_on_its_way(kind, decorators):
            return None
        own = {name for each in decorators.field_serializers.values() for name in each.info.fields}
        return {
            **{name: Any if name in own else field.annotation for name, field in model.items()},
            **dict.fromkeys(getattr(kind, "model_computed_fields", ()), Any),
        }
    if decorators is not None:  # one of its dataclasses
        return None
    try:
        if is_typeddict(kind):
            return typing.get_type_hints(kind)
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(kind)}
    except (NameError, TypeError):  # a hint that cannot be read yet
        return None
    return None


def _is_changed_on_its_way(model: Any, decorators: Any) -> bool:
    """Whether JSON of a model may have other names than its fields: more of them, aliases, one of its own."""
    config = model.model_config
    is_root = bool(getattr(model, "__pydantic_root_model__", False))
    aliases = bool(config.get("serialize_by_alias"))
    return bool(decorators.model_serializers) or is_root or config.get("extra") == "allow" or aliases
