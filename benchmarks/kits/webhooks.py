"""`python -m benchmarks.kits.webhooks`: deliveries in a second, by one worker to a receiver on this machine.

The receiver takes each webhook, checks its signature, and answers at once. Rows: an address that is
registered, on SQLite and, with `--postgres`, on PostgreSQL; and one that wants its events in order. Prints a
table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from errands import Keyring
from errands.doors.local.valkey import EmbeddedValkey
from errands.kits.webhooks import InvalidSignature, verify

ROOT = Path(__file__).parents[2]
PROGRAM = "benchmarks.programs.webhooks_work"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def main(
    runs: Annotated[int, typer.Option(min=100, help="Webhooks of each row.")] = 3000,
    postgres: Annotated[str, typer.Option(help="URL of an empty database, for a row on PostgreSQL.")] = "",
) -> None:
    """Measure, print, and say it as JSON."""
    rows: list[tuple[str, str, bool, int]] = [
        ("SQLite", "", False, runs),
        *([("PostgreSQL", postgres, False, runs)] if postgres else []),
        ("SQLite, in order", "", True, max(100, runs // 5)),
    ]
    found = {name: _apart(url, ordered, count) for name, url, ordered, count in rows}
    print(f"{'':20}{'deliveries/s':>14}{'worker, ms each':>18}")
    for name, told in found.items():
        print(f"{name:20}{told['rate']:>14,.0f}{told['ms']:>18.2f}")
    print(json.dumps(found))


def _apart(database: str, ordered: bool, runs: int) -> dict[str, float]:
    """Measure a row on servers of its own, in a process of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedValkey(Path(folder)) as valkey,
        receiver() as received,
    ):
        environment = {
            **os.environ, "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_HOME": folder,
            "ERRANDS_SECRET_KEYS": Keyring.new_key(), "ERRANDS_DATABASE_URL": database,
            "ERRANDS_WEBHOOK_ALLOW": f"127.0.0.1:{received.port}",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "benchmarks.kits.webhooks", "send", str(received.port), str(runs),
            "ordered" if ordered else "",
        ]  # fmt: skip
        sent = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        received.secret = sent.decode().split()[-1]
        worker = subprocess.Popen(
            [
                sys.executable, "-m", "celery", "-A", f"{PROGRAM}:app", "worker", "-Q", "webhooks",
                "-c", "100", "--without-gossip", "--without-mingle", "-l", "ERROR",
            ],
            env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            began, busy = _until(lambda: received.count > 0), _busy(worker)
            seconds = _until(lambda: received.count >= runs) - began
            return {"rate": runs / seconds, "ms": 1000 * (_busy(worker) - busy) / runs}
        finally:
            worker.terminate()
            worker.wait()


class Receiver:
    """Answers 200 to each webhook whose signature is right, and counts it."""

    port = 0
    count = 0
    secret = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
            length = next(int(value) for name, value in headers.items() if name.lower() == "content-length")
            verify(headers, await reader.readexactly(length), self.secret)
            writer.write(_ANSWER)
            await writer.drain()
            self.count += 1
        except InvalidSignature as exc:
            print(f"refused: {exc}", file=sys.stderr)
        finally:
            writer.close()


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver in a thread of its own."""
    made, ready, loop = Receiver(), threading.Event(), asyncio.new_event_loop()

    async def listen() -> None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, backlog=1000)
        made.port = server.sockets[0].getsockname()[1]
        ready.set()

    loop.create_task(listen())
    threading.Thread(target=loop.run_forever, daemon=True).start()
    ready.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(loop.stop)


def _send(port: int, runs: int, ordered: bool) -> str:
    """Register the receiver, send all webhooks, and answer its secret."""
    from benchmarks.programs.webhooks_work import app
    from errands.kits.webhooks import WebhookStore

    app.database.upgrade()
    url = f"http://127.0.0.1:{port}/hook"

    async def register() -> str:
        _, secret = await app.resources.instance(WebhookStore).add(url, ordered=ordered)
        await app.database.adispose()
        return secret

    secret = asyncio.run(register())
    calls: Any = (("user.registered", {"user_id": n}, url) for n in range(runs))
    app.tasks["dispatch_webhook"].delay_many(calls)
    return secret


def _busy(worker: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(worker.pid).cpu_times()
    return float(times.user + times.system)


def _until(condition: Any) -> float:
    """When `condition` came true."""
    while not condition():
        time.sleep(0.005)
    return time.perf_counter()


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        print(_send(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "ordered"))
    else:
        typer.run(main)
