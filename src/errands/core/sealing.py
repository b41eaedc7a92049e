"""Sealing inside of arguments: wherever a type hint says so, however deep, each value by itself.

The marks in `Annotated` hook into pydantic's schema. A value is opened when it is validated, and sealed when
it is made JSON, but only where a `Sealing` is the context: a model that is used elsewhere behaves as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import GetCoreSchemaHandler, SecretBytes, SecretStr
from pydantic_core import PydanticCustomError, ValidationError, core_schema

from errands.core.errors import SecretError
from errands.core.secrets import Keyring, is_sealed, scrub

MARK = "errands_sealed"
HIDDEN = "errands_hidden"  # the type of an error whose input must not be shown


class Sealing:
    """The context of one check of a call.

    Args:
        keyring: seals and opens.
        tasks: the task's name and its older ones. Values are sealed for the first.
        opened: collects the texts of what was open in the call, to keep them out of errors.
    """

    def __init__(self, keyring: Keyring, tasks: Sequence[str], opened: list[str]) -> None:
        self.keyring = keyring
        self.tasks = tasks
        self.opened = opened
        self.failed: SecretError | None = None

    def seal(self, plain: Any, prefix: str) -> str:
        """A JSON value, sealed. pydantic buries what a serializer raises; so it is kept here as well."""
        try:
            return self.keyring.seal(plain, prefix + self.tasks[0])
        except SecretError as exc:
            self.failed = exc
            raise

    def open(self, value: Any, prefix: str) -> Any:
        """What `value` is; unsealed values are themselves."""
        if is_sealed(value):
            value = self.keyring.open(value, *[prefix + task for task in self.tasks])
        self.opened.extend(texts_in(value))
        return value


def sealed_schema(prefix: str, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    """pydantic's schema of a value that is sealed on its way. `prefix` tells kinds of sealed values apart."""

    def opening(value: Any, inner: Any, info: core_schema.ValidationInfo) -> Any:
        sealing = info.context
        if not isinstance(sealing, Sealing):
            return inner(value)
        value = sealing.open(value, prefix)
        try:
            return inner(value)
        except ValidationError as exc:
            problems = [
                ".".join([*map(str, e["loc"]), ""]) + e["msg"] for e in exc.errors(include_input=False)
            ]
            text = scrub("; ".join(problems), sealing.opened)
            raise PydanticCustomError(HIDDEN, "{problem}", {"problem": text}) from None

    def sealing(value: Any, inner: Any, info: core_schema.SerializationInfo) -> Any:
        plain = inner(value)
        return info.context.seal(plain, prefix) if isinstance(info.context, Sealing) else plain

    setattr(sealing, MARK, True)
    return core_schema.with_info_wrap_validator_function(
        opening, handler(source), metadata={MARK: True},
        serialization=core_schema.wrap_serializer_function_ser_schema(sealing, info_arg=True),
    )  # fmt: skip


class Unsealable(TypeError):
    """A secret lies where it would not be sealed; the text says why."""


def holds_marks(schema: Any, definitions: dict[str, Any]) -> bool:
    """Whether something in pydantic's `schema` is sealed.

    Args:
        definitions: schemas that others refer to, by their names.

    Raises:
        Unsealable: a serializer of the application's own stands around it, or it is pydantic's SecretStr.
    """
    return _Search(definitions).look(schema)


def texts_in(value: Any) -> Iterator[str]:
    """The texts of all that is in a value: strings, numbers, and what models hold."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_in(key)
            yield from texts_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif hasattr(value, "__dict__"):
        yield from texts_in(vars(value))


class _Search:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._seen: set[int] = set()

    def look(self, node: Any) -> bool:
        if isinstance(node, list | tuple):
            return self._any(node)
        if not isinstance(node, dict) or id(node) in self._seen:
            return False
        self._seen.add(id(node))
        if node.get("type") == "is-instance" and node.get("cls") in (SecretStr, SecretBytes):
            raise Unsealable("pydantic's SecretStr would be sent as asterisks; annotate it `Secret[str]`")
        metadata = node.get("metadata")
        marked = isinstance(metadata, dict) and MARK in metadata
        inside = [value for key, value in node.items() if key not in ("metadata", "serialization")]
        found = self._any(inside) or marked
        if node.get("type") == "definition-ref":
            found = self.look(self._definitions.get(node["schema_ref"])) or found
        serialization = node.get("serialization") or {}
        own = str(serialization.get("type", "")).startswith("function")
        if found and own and not hasattr(serialization.get("function"), MARK):
            raise Unsealable("a serializer of its own would let what is secret in it pass unsealed")
        return found

    def _any(self, nodes: Iterable[Any]) -> bool:
        found = [self.look(node) for node in nodes]  # all of them: each may be refused
        return any(found)
