"""What the local run says when it cannot go on."""

from __future__ import annotations


class LocalRunError(RuntimeError):
    """The local run cannot start or go on. The message is one line: what is wrong, and what to do."""
