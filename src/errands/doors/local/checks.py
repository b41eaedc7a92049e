"""How the local run asks a process whether it is ready."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path

from errands.doors.local.ports import LOOPBACK
from errands.doors.local.processes import Check
from errands.doors.local.valkey import EmbeddedValkey


def valkey_answers(valkey: EmbeddedValkey) -> Check:
    """Ready once the server has loaded its data."""

    async def check() -> bool:
        return await asyncio.to_thread(valkey.answers)

    return check


def http_answers(port: int, path: str = "/") -> Check:
    """Ready once the server answers without an error of its own; an unknown path is an answer as well."""

    def ask() -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def check() -> bool:
        return await asyncio.to_thread(ask)

    return check


def file_exists(path: Path) -> Check:
    """Ready once the process has made the file that it was told of (`ERRANDS_READY_FILE`)."""

    async def check() -> bool:
        return await asyncio.to_thread(path.exists)

    return check
