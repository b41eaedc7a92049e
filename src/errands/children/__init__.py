"""Functions that run in child processes with limits: for work on files that strangers made.

    children = Children("thumbnails", Limits(memory=256 * MIB, seconds=20))
    size = await children.acall("shop.pictures:measure", data)   # or, without asyncio: children.call(…)

The function is named (`module:function`), and gets and returns plain data: None, bool, int, float, str,
bytes, lists and dictionaries of these. A child is started when it is needed, used for many calls, and
replaced when it has served enough of them or has grown. Whatever the function does to its process (a crash
in a C library, a file that unpacks to gigabytes, a loop without an end) is an error of that one call.

Why so, and what a child may not do: `docs/decisions/0034-children-with-limits.md`.
"""

from errands.children.errors import CallFailed, CallRefused, ChildCrashed, ChildError, LimitReached
from errands.children.limits import MIB, Limits
from errands.children.pool import Children

__all__ = [
    "MIB",
    "CallFailed",
    "CallRefused",
    "ChildCrashed",
    "ChildError",
    "Children",
    "LimitReached",
    "Limits",
]
