"""Whether this worker is stopping, for its children too: one byte of memory that they share with it."""

from __future__ import annotations

import mmap

_shared = mmap.mmap(-1, 1)  # made when the module is imported, which is before the pool forks


def set_stopping(stopping: bool) -> None:
    """From the worker's main process: it stops, or it has just started."""
    _shared[0] = stopping


def is_stopping() -> bool:
    """Whether work that can be handed over between two steps should be."""
    return _shared[0] == 1
