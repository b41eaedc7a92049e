"""A lower priority for one thread, so that writing the ledger yields to the work that it tells of."""

from __future__ import annotations

import os
import sys
import threading

import structlog

_log = structlog.get_logger(__name__)


def yield_to_others(nice: int) -> bool:
    """Lower the priority of the calling thread; the others of its process keep theirs.

    Linux schedules threads one by one, and takes a thread's id where POSIX says a process's. Elsewhere the
    whole process would be meant, with the leader's lease and the schedules in it, so nothing is done there.

    Args:
        nice: 0 (as all others) to 19 (only what nobody else wants); each step is about a tenth less of a busy
            processor.

    Returns:
        Whether the priority is as asked.
    """
    if nice == 0:
        return True
    if not sys.platform.startswith("linux"):
        return False
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except OSError as exc:  # a container may forbid it
        _log.warning("could not lower the priority of this thread", nice=nice, reason=str(exc))
        return False
    return True
