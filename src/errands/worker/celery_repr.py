"""Celery's tracer describes each result for its log, in case somebody reads it: that takes 7 µs for a number.

This is the one place that relies on the tracer looking the function up in its module:
`tests/unit/test_celery_internals.py` tells us when Celery changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app import trace

_celerys: Callable[..., str] = trace.saferepr
_PLAIN = (type(None), bool, int, float)


def saferepr(value: Any, maxlen: int | None = None, *args: Any, **kwargs: Any) -> str:
    """As Celery's, and sooner for what has one spelling only."""
    if type(value) in _PLAIN:
        text = repr(value)
        if maxlen is None or len(text) < maxlen:
            return text
    return _celerys(value, maxlen, *args, **kwargs)


trace.saferepr = saferepr
