"""Runs a module as `python -m cProfile -o <file> -m <module>` does, with all of its threads in the profile.

The asyncio pool works on a loop in a thread of its own, and cProfile looks at the main thread alone.
"""

from __future__ import annotations

import atexit
import cProfile
import os
import pstats
import runpy
import sys
import threading
from types import FrameType
from typing import Any

_profiles: list[cProfile.Profile] = []


def main() -> None:
    """`python -m benchmarks.profiled <file> <module> <arguments>`."""
    _, path, module, *arguments = sys.argv
    threading.setprofile(_begin)
    _begin()
    atexit.register(_write, path)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _begin(frame: FrameType | None = None, event: str = "", argument: Any = None) -> None:
    """A thread's first call: from now on its own profile is told."""
    if os.getpid() == _PROCESS:
        profile = cProfile.Profile()
        _profiles.append(profile)
        profile.enable()


def _write(path: str) -> None:
    threading.setprofile(None)
    stats: pstats.Stats | None = None
    for profile in _profiles:
        try:
            stats = pstats.Stats(profile) if stats is None else stats.add(profile)
        except TypeError:  # of a thread that has called nothing
            continue
    if stats is not None:
        stats.dump_stats(path)


_PROCESS = os.getpid()

if __name__ == "__main__":
    main()
