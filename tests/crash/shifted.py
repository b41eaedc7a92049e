"""A process whose clock is wrong: `python -m tests.crash.shifted SECONDS -m MODULE ARGUMENTS…`.

`time.time` is replaced before anything else is imported, so that all that Celery, kombu, redis-py and Errands
know of the time is wrong; the monotonic clock, by which the history is kept, is not. It needs no root.
"""

from __future__ import annotations

import runpy
import sys
import time


def shift(seconds: float) -> None:
    """Let `time.time` and `time.time_ns` tell the time of so many seconds later."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)


def main() -> None:
    seconds, flag, module, *arguments = sys.argv[1:]
    if flag != "-m":
        raise SystemExit(__doc__)
    shift(float(seconds))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
