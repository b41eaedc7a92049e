"""Ends the processes of a local run whose supervisor was killed.

A script of its own that imports nothing of ours: it must start in no time and live through anything. It
reads lines from its standard input, a pipe that the supervisor holds open: `+<group>` and `-<group>` say
which process groups there are. The end of the pipe means that the supervisor is gone; whatever is left is
then told to stop, and after a moment killed. It also holds the folder's lock until that is done.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_SECONDS = 3.0


def send(groups: set[int], number: signal.Signals) -> set[int]:
    """Signals every group and returns those that still exist."""
    left = set()
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue
        left.add(group)
    return left


def main() -> None:
    """Follows the supervisor's list until the pipe ends, then ends what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    groups = send(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while groups and time.monotonic() < deadline:
        time.sleep(0.05)
        groups = {group for group in groups if _exists(group)}
    send(groups, signal.SIGKILL)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
