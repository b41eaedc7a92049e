"""A Valkey for one job: on a free port of the loopback address, nothing kept, no password.

The suites connect by host and port alone; the embedded server of the local run asks for a password.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from sources import OutsideError

from errands.doors.local.ports import LOOPBACK, free_port
from errands.doors.local.valkey import find_server

START_SECONDS = 20
START_ATTEMPTS = 5


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """The port of a server that answers, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(START_ATTEMPTS):
        port = free_port()
        with (folder / "valkey.log").open("ab") as log:
            process = subprocess.Popen(
                [find_server(), "--bind", LOOPBACK, "--port", str(port), "--dir", folder,
                 "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            if _answers(process, port):
                yield port
                return
        finally:
            process.kill()
            process.wait()
    raise OutsideError(f"No Valkey starts; its last words are in {folder / 'valkey.log'}.")


def label(port: int) -> str:
    """Name and version of the server on that port."""
    with redis.Redis(host=LOOPBACK, port=port) as client:
        info = client.info("server")
    return (
        f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    )


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """False if the server ended before it answered: mostly, its port was taken."""
    deadline = time.monotonic() + START_SECONDS
    with redis.Redis(host=LOOPBACK, port=port, socket_connect_timeout=1) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                # Another server that took the port first answers as well, but is another process.
                return int(client.info("server")["process_id"]) == process.pid
            except redis.ConnectionError:
                time.sleep(0.05)
    return False
