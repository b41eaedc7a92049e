"""Celery's tracer describes each result for its log, in case somebody reads it: that takes 7 µs for a number.

This is the one place that relies on the tracer looking the function up in its module:
`tests/unit/test_celery_internals.py` tells us when Celery changes it.
"""

from __future__ import annotations

from typing import Any

from celery.app import trace

_celerys = trace.saferepr
_PLAIN = (type(None), bool, int, float)


def saferepr(value: Any, *args: Any, **kwargs: Any) -> str:
    """As Celery's, and sooner for what has one spelling only."""
    return repr(value) if type(value) in _PLAIN else _celerys(value, *args, **kwargs)


trace.saferepr = saferepr
