"""Taking the texts of secrets out of what is written down: values, and errors with all that hangs on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, quote_plus

from errands.core.secrets import scrub

SHORTEST = 4  # characters: masking every "a" in a text would hide the text and tell the secret


def variants(secrets: Sequence[str]) -> list[str]:
    """The texts to look for: the secrets, and how they look inside of a repr, of JSON and of an address."""
    found = {
        form
        for secret in secrets
        if len(secret) >= SHORTEST
        for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote_plus(secret))
    }
    return sorted(found, key=len, reverse=True)


def scrubbed(value: Any, texts: Sequence[str]) -> Any:
    """`value` without `texts` (see `variants`). What is no JSON and would show one becomes its text."""
    if not texts or value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return scrub(value, texts)
    shown = repr(value)
    if not any(text in shown for text in texts):
        return value
    if type(value) is dict:
        return {scrubbed(key, texts): scrubbed(item, texts) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([scrubbed(item, texts) for item in value])
    return scrub(shown, texts)


def harmless(error: BaseException, texts: Sequence[str]) -> BaseException:
    """`error` without `texts`, in its arguments, attributes and notes, its causes and the members of a group.

    It is changed in place. What cannot be (pydantic's errors quote what they were given, and are written in
    Rust) is replaced by an error of the same name that says the same without them.
    """
    return _clean(error, texts, {}) if texts else error


def _clean(error: BaseException, texts: Sequence[str], seen: dict[int, BaseException]) -> BaseException:
    if id(error) in seen:
        return seen[id(error)]
    seen[id(error)] = error
    error.args = scrubbed(error.args, texts)
    for name, value in list(vars(error).items()):
        # `__notes__` is among them.
        inner = isinstance(value, BaseException)
        vars(error)[name] = _clean(value, texts, seen) if inner else scrubbed(value, texts)
    cleaned = error
    if isinstance(error, BaseExceptionGroup):
        members = [_clean(member, texts, seen) for member in error.exceptions]
        if any(new is not old for new, old in zip(members, error.exceptions, strict=True)):
            cleaned = error.derive(members)
    shown = f"{cleaned} {cleaned!r}"
    if any(text in shown for text in texts):
        cleaned = _stand_in(cleaned, texts)
    if cleaned is not error:
        cleaned.__notes__ = list(getattr(error, "__notes__", []))
        cleaned.__traceback__ = error.__traceback__
        seen[id(error)] = cleaned
    suppressed = error.__suppress_context__
    if error.__cause__ is not None:
        cleaned.__cause__ = _clean(error.__cause__, texts, seen)
    if error.__context__ is not None:
        cleaned.__context__ = _clean(error.__context__, texts, seen)
    cleaned.__suppress_context__ = suppressed
    return cleaned


def _stand_in(error: BaseException, texts: Sequence[str]) -> BaseException:
    kind = type(error)
    base = Exception if isinstance(error, Exception) else BaseException
    named = type(kind.__name__, (base,), {"__module__": kind.__module__})
    instead: BaseException = named(scrub(str(error), texts))
    return instead
