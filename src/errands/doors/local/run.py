"""`errands up`: which processes a local run has, in which order they start, and what the user is told."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from errands.doors.local.checks import file_exists, http_answers, valkey_answers
from errands.doors.local.environment import Ports, environment, mail_goes_elsewhere
from errands.doors.local.errors import LocalRunError
from errands.doors.local.home import Home, read_json, write_private
from errands.doors.local.logs import Logs
from errands.doors.local.ports import LOOPBACK, free_port, require_free
from errands.doors.local.processes import Program
from errands.doors.local.screen import default_hints, ready_screen
from errands.doors.local.supervisor import Supervisor
from errands.doors.local.valkey import EmbeddedValkey, find_server
from errands.doors.local.watchdog_client import Watchdog
from errands.doors.local.workers import Worker, assign, default_workers, unread

SERVERS = ("valkey", "smtp", "mail", "webhooks")


@dataclass(frozen=True)
class Options:
    """What `errands up` was asked for; `port` 0 means any free one."""

    app: str
    web: str | None = None
    seed: str | None = None
    home: Path = Path(".errands")
    port: int = 8000
    workers: Sequence[Worker] = ()


def up(options: Options) -> None:
    """Runs until it is stopped (Ctrl-C, SIGTERM). LocalRunError if it cannot start or go on."""
    if options.port:
        require_free(options.port)
    find_server()
    home = Home(options.home)
    home.open()
    logs = Logs(home / "logs")
    watchdog = Watchdog(inherit=home.lock_descriptor)
    try:
        asyncio.run(LocalRun(options, home, logs, watchdog).run())
    finally:
        watchdog.close()
        logs.close()
        home.close()


class LocalRun:
    """One local run, from its start to its end."""

    def __init__(self, options: Options, home: Home, logs: Logs, watchdog: Watchdog) -> None:
        self.options = options
        self.home = home
        self.logs = logs
        self.supervisor = Supervisor(logs, watchdog)
        kept = home.ports(SERVERS)
        self.ports = Ports(web=options.port or free_port(), **kept)
        self.valkey = EmbeddedValkey(home / "valkey", port=self.ports.valkey)
        self.environment = environment(home, self.ports, self.valkey.url, options.app)
        if options.web is None:
            self.environment.setdefault("ERRANDS_ADMIN_TOKEN", home.admin_token())

    async def run(self) -> None:
        """Starts everything, waits for the signal to stop, and ends everything."""
        stop = self._stop_signal()
        work = asyncio.create_task(self._start_and_watch())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            self.logs.say("Stopping…")
        work.cancel()
        stopped.cancel()
        await self.supervisor.stop()
        self.home.access_file.unlink(missing_ok=True)
        outcome = (await asyncio.gather(work, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            raise outcome
        self.logs.say(f"Stopped. The next start goes on with the data in {self.home.path}.")

    def _stop_signal(self) -> asyncio.Event:
        stop = asyncio.Event()

        def on_signal() -> None:
            if stop.is_set():
                self.supervisor.kill()
            stop.set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, on_signal)
        loop.add_signal_handler(signal.SIGTERM, on_signal)
        # Under nohup the end of the terminal is to be ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, on_signal)
        return stop

    async def _start_and_watch(self) -> None:
        started = time.monotonic()
        await self._start_valkey()
        prepared = await self._prepare()
        kinds: dict[str, list[str]] = prepared["queues"]
        declared = sorted(chain(*kinds.values()))
        workers = assign(self.options.workers or default_workers(kinds), declared)
        for queue in unread(workers, declared):
            self.logs.say(f"No worker reads the queue {queue}; add it to a --worker.", problem=True)
        await self.supervisor.start(self._web(), self._beat(), *(self._worker(w) for w in workers))
        access = self._access(prepared["access"])
        write_private(self.home.access_file, json.dumps(access, indent=2) + "\n")
        hints = prepared["access"].get("hints") or default_hints(access)
        self.logs.show(ready_screen(access, self.home.path, time.monotonic() - started, hints))
        if host := mail_goes_elsewhere():
            self.logs.say(f"Mail goes to {host}, as the environment says, not to the inbox.", problem=True)
        await self.supervisor.failed()

    async def _start_valkey(self) -> None:
        command = self.valkey.command()
        await self.supervisor.start_store(
            Program("valkey", command, self.environment, ready=valkey_answers(self.valkey))
        )

    async def _prepare(self) -> dict[str, Any]:
        """Migrations and seed, while the two small servers, which need neither, start beside them."""
        self.logs.say("Preparing the database…")
        answer = self.home / "run" / "prepared.json"
        answer.unlink(missing_ok=True)
        arguments = ["--app", self.options.app]
        if self.options.seed is not None:
            arguments += ["--seed", self.options.seed]
        await asyncio.gather(
            self.supervisor.start(self._mailbox(), self._receiver()),
            self.supervisor.run(
                "prepare",
                _python("errands.doors.local.prepare", *arguments),
                self.environment | {"ERRANDS_PREPARED_FILE": str(answer)},
            ),
        )
        prepared: dict[str, Any] = read_json(answer, None)
        answer.unlink(missing_ok=True)
        if prepared is None:
            raise LocalRunError(f"The preparation left no answer; see {self.logs.folder / 'prepare.log'}.")
        return prepared

    def _mailbox(self) -> Program:
        command = _python(
            "errands.doors.local.mailbox", "--home", str(self.home.path),
            "--http-port", str(self.ports.mail), "--smtp-port", str(self.ports.smtp),
        )  # fmt: skip
        return Program("mail", command, self.environment, ready=http_answers(self.ports.mail))

    def _receiver(self) -> Program:
        command = _python(
            "errands.doors.local.receiver", "--home", str(self.home.path),
            "--http-port", str(self.ports.webhooks),
        )  # fmt: skip
        return Program("webhooks", command, self.environment, ready=http_answers(self.ports.webhooks))

    def _web(self) -> Program:
        target = [self.options.web] if self.options.web else ["--factory", "errands.doors.local.web:create"]
        command = _python(
            "uvicorn", *target, "--app-dir", ".", "--host", LOOPBACK, "--port", str(self.ports.web),
            # Streams of server-sent events would otherwise keep it from ending.
            "--timeout-graceful-shutdown", "1",
        )  # fmt: skip
        return Program("web", command, self.environment, ready=http_answers(self.ports.web, "/healthz"))

    def _worker(self, worker: Worker) -> Program:
        name = worker.name if worker.name.startswith("worker") else f"worker-{worker.name}"
        command = _python(
            "errands", "worker", "--name", worker.name, "--queues", ",".join(worker.queues),
            "--concurrency", str(worker.concurrency),
        )  # fmt: skip
        return self._celery(name, command)

    def _beat(self) -> Program:
        schedule = str(self.home / "celerybeat-schedule")
        return self._celery("beat", _python("errands", "beat", "--schedule", schedule))

    def _celery(self, name: str, command: list[str]) -> Program:
        ready = self.home / "run" / f"{name}.ready"
        return Program(
            name,
            command,
            self.environment | {"ERRANDS_READY_FILE": str(ready)},
            ready=file_exists(ready),
            before_start=lambda: ready.unlink(missing_ok=True),
            cold_stop=signal.SIGQUIT,
        )

    def _access(self, seeded: dict[str, Any]) -> dict[str, Any]:
        url = f"http://{LOOPBACK}:{self.ports.web}"
        own = {} if self.options.web else {"admin_token": self.environment["ERRANDS_ADMIN_TOKEN"]}
        return own | {
            "url": url,
            "admin_email": None,
            "admin_password": None,
            "mail_url": f"http://{LOOPBACK}:{self.ports.mail}",
            "messages_url": f"http://{LOOPBACK}:{self.ports.mail}/phone",
            "webhooks_url": f"http://{LOOPBACK}:{self.ports.webhooks}",
            "dashboard_url": f"{url}/docs",
            "broker_url": self.valkey.url,
            "database_url": self.environment["ERRANDS_DATABASE_URL"],
            **{key: value for key, value in seeded.items() if key != "hints"},
        }


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
