"""`errands up` as a newcomer runs it: everything starts, works, survives, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

HERE = Path(__file__).parent
SECONDS = 60


class LocalRun:
    """One `errands up` in a process group of its own, as a terminal would start it."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.output = home.with_suffix(".out").open("a+b")
        environment = dict(os.environ)
        for name in (
            "PORT",
            "ERRANDS_HOME",
            "ERRANDS_APP",
            "ERRANDS_DATABASE_URL",
            "SMTP_HOST",
            "EMAIL_HOST",
        ):
            environment.pop(name, None)
        arguments = ["up", "--app", "local_app.tasks:app", "--home", str(home)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "errands", *arguments, "--port", "0", *options],
            cwd=HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,
        )
        self.processes: list[psutil.Process] = []

    def ready(self) -> dict[str, Any]:
        until(lambda: (self.home / "access.json").exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.printed()
        self.processes = psutil.Process(self.process.pid).children(recursive=True)
        access: dict[str, Any] = json.loads((self.home / "access.json").read_text())
        return access

    def find(self, words: str) -> psutil.Process:
        """The process started with these words, and not one of its children."""
        candidates = psutil.Process(self.process.pid).children()
        return next(p for p in candidates if words in " ".join(p.cmdline()))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.processes = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def left(self) -> list[psutil.Process]:
        return [p for p in self.processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def printed(self) -> str:
        return self.home.with_suffix(".out").read_text()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {SECONDS} s"
        time.sleep(0.05)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., LocalRun]]:
    runs: list[LocalRun] = []

    def start(*options: str, home: str = "home") -> LocalRun:
        runs.append(LocalRun(tmp_path / home, *options))
        return runs[-1]

    yield start
    for run in runs:
        run.stop(signal.SIGTERM)
        run.output.close()


WEB = ("--web", "local_app.web:api")
SEED = ("--seed", "local_app.seed:seed")
WORKERS = ("--worker", "io=emails:2", "--worker", "cpu=*:1")


PROCESSES = {
    "valkey": "valkey-server",
    "mail": "local.mailbox",
    "webhooks": "local.receiver",
    "web": "uvicorn",
    "worker-io": "worker --name io",
    "worker-cpu": "worker --name cpu",
    "beat": "errands beat",
}


def test_it_starts_works_survives_ends_and_goes_on(started: Callable[..., LocalRun]) -> None:
    run = started(*WEB, *SEED, *WORKERS)
    access = run.ready()
    assert stat.S_IMODE((run.home / "access.json").stat().st_mode) == 0o600
    assert access["admin_email"] == "admin@example.com"
    assert access["dashboard_url"] == access["url"] + "/docs"
    assert sums_up(access)
    httpx.get(access["url"] + "/mail")
    until(lambda: [mail["subject"] for mail in mails(access)] == ["Grüße"])
    with redis.Redis.from_url(access["broker_url"]) as client:
        client.set("kept", "yes")
    assert "already uses" in refused(started(home="home/../home"))

    killed = {words: run.find(words) for words in PROCESSES.values()}
    for process in killed.values():
        process.kill()
    until(lambda: all(came_back(run, words, process.pid) for words, process in killed.items()))
    until(lambda: sums_up(access))
    for name in PROCESSES:
        assert f"{name} was killed by SIGKILL; it is started again in 0.5 s." in run.printed()

    assert run.stop() == 0
    assert run.left() == []
    assert not (run.home / "access.json").exists()
    printed = run.printed()
    for text in ("Ready after", "admin@example.com", access["url"], access["mail_url"], "What to try"):
        assert text in printed
    for name in PROCESSES:
        assert f"{name} is ready." in printed

    again = started(*SEED)
    access = again.ready()
    admin = {"Authorization": f"Bearer {access['admin_token']}"}
    assert httpx.get(access["url"] + "/api/celery/health").status_code == 401
    health = httpx.get(access["url"] + "/api/celery/health", headers=admin, timeout=SECONDS).json()
    assert health["redis"]
    assert access["admin_password"] == "seeded 2"
    assert [mail["to"] for mail in mails(access)] == [["ann@example.com"]]
    with redis.Redis.from_url(access["broker_url"]) as client:
        assert client.get("kept") == b"yes"

    assert len(again.processes) >= len(PROCESSES)
    again.process.kill()
    again.process.wait()
    until(lambda: again.left() == [])


def mails(access: dict[str, Any]) -> list[Any]:
    return list(httpx.get(access["mail_url"] + "/api/messages").json())


def sums_up(access: dict[str, Any]) -> bool:
    try:
        return bool(httpx.get(access["url"] + "/sum", timeout=SECONDS).json() == {"sum": 5})
    except (httpx.TransportError, ValueError):
        return False


def came_back(run: LocalRun, words: str, old: int) -> bool:
    try:
        return run.find(words).pid != old
    except (StopIteration, psutil.NoSuchProcess):
        return False


def refused(run: LocalRun) -> str:
    assert run.process.wait(SECONDS) == 1
    (line,) = [line for line in run.printed().splitlines() if line.startswith("errands: ")]
    return line


def test_a_taken_port_is_told_before_anything_starts(started: Callable[..., LocalRun]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = started("--port", str(port))
        assert f"Port {port} is taken" in refused(run)
    assert run.printed().count("\n") == 1
    assert not run.home.exists()


def test_a_mistake_in_the_command_is_one_line(started: Callable[..., LocalRun]) -> None:
    run = started("--app", "nowhere.tasks:app")
    assert "There is no module nowhere.tasks" in refused(run)
    assert "Traceback" not in run.printed()
    assert run.left() == []


def test_it_can_be_stopped_while_it_starts(started: Callable[..., LocalRun]) -> None:
    run = started()
    until(lambda: "Preparing" in run.printed())
    assert run.stop() == 0
    assert run.left() == []
