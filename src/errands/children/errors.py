"""What can become of a call in a child process, other than its answer."""

from __future__ import annotations

from typing import Literal

from errands.core.errors import ErrandsError


class ChildError(ErrandsError):
    """The root of all errors of calls in child processes.

    `may_pass`: whether the same call may succeed the next time.
    """

    may_pass = True


class CallRefused(ChildError):
    """The call was not made: its arguments are no plain data, or the children were closed."""

    may_pass = False


class CallFailed(ChildError):
    """The function raised an error that is not among the `raises` of its `Children`.

    `kind`: the error's class (`module.Class`). `text`: what it says. `trace`: the traceback in the child.
    """

    may_pass = False

    def __init__(self, function: str, kind: str, text: str, trace: str) -> None:
        self.kind = kind
        self.text = text
        self.trace = trace
        super().__init__(f"{function} raised {kind}: {text}\n{trace}".rstrip())


class LimitReached(ChildError):
    """The call took more than it may, and its process was ended.

    `limit`: which one. Memory and processor time are used by the work itself, so the same call meets the
    same end again; `seconds` pass on a busy machine too.
    """

    def __init__(self, limit: Literal["memory", "cpu_seconds", "seconds"], text: str) -> None:
        self.limit = limit
        self.may_pass = limit == "seconds"
        super().__init__(text)


class ChildCrashed(ChildError):
    """The process ended in the middle of the call.

    `signal`: the name of the signal that ended it (`SIGSEGV`), or None where it left by itself.
    `words`: the last that it wrote to its standard error. It `may_pass` if the signal came from somebody else
    (SIGKILL, SIGTERM), such as a system that ran out of memory.
    """

    def __init__(self, text: str, *, signal: str | None, words: str) -> None:
        self.signal = signal
        self.may_pass = signal in {"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"}
        self.words = words
        super().__init__(f"{text}\n{words}".rstrip())
