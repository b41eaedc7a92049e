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
        arguments = ["up", "--app", "local_app.tasks:app", "--web", "local_app.web:api", "--home", str(home)]
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

    def find(self, *words: str) -> psutil.Process:
        """The process started with these words, and not one of its children."""
        candidates = psutil.Process(self.process.pid).children()
        return next(p for p in candidates if all(word in " ".join(p.cmdline()) for word in words))

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


SEED = ("--seed", "local_app.seed:seed")
WORKERS = ("--worker", "io=emails:2", "--worker", "cpu=*:1")


def test_everything_works_ends_and_goes_on_with_the_same_data(started: Callable[..., LocalRun]) -> None:
    run = started(*SEED, *WORKERS)
    access = run.ready()
    assert stat.S_IMODE((run.home / "access.json").stat().st_mode) == 0o600
    assert access["admin_email"] == "admin@example.com"
    assert access["dashboard_url"] == access["url"] + "/docs"
    assert httpx.get(access["url"] + "/sum", timeout=SECONDS).json() == {"sum": 5}
    httpx.get(access["url"] + "/mail")

    def mails() -> list[Any]:
        return list(httpx.get(access["mail_url"] + "/api/messages").json())

    until(lambda: len(mails()) == 1)
    assert (mails()[0]["to"], mails()[0]["subject"]) == (["ann@example.com"], "Grüße")
    with redis.Redis.from_url(access["broker_url"]) as client:
        client.set("kept", "yes")
    assert run.stop() == 0
    assert run.left() == []
    assert not (run.home / "access.json").exists()
    printed = run.printed()
    for text in ("Ready after", "admin@example.com", access["url"], access["mail_url"], "What to try"):
        assert text in printed
    for name in ("valkey", "mail", "webhooks", "web", "worker-io", "worker-cpu", "beat"):
        assert f"{name} is ready." in printed

    again = started(*SEED, *WORKERS)
    access = again.ready()
    assert access["admin_password"] == "seeded 2"
    assert len(mails()) == 1
    with redis.Redis.from_url(access["broker_url"]) as client:
        assert client.get("kept") == b"yes"


def test_each_process_comes_back_and_says_so(started: Callable[..., LocalRun]) -> None:
    run = started()
    access = run.ready()
    for name, words in {
        "valkey": ("valkey.conf",),
        "mail": ("local.mailbox",),
        "webhooks": ("local.receiver",),
        "web": ("uvicorn",),
        "worker": ("errands worker",),
        "beat": ("errands beat",),
    }.items():
        process = run.find(*words)
        process.kill()
        until(lambda name=name: f"{name} was killed by SIGKILL; it is started again" in run.printed())  # type: ignore[misc]
        until(lambda words=words, old=process.pid: alive_again(run, words, old))  # type: ignore[misc]

    def sums_up() -> bool:
        try:
            return bool(httpx.get(access["url"] + "/sum", timeout=SECONDS).json() == {"sum": 5})
        except (httpx.TransportError, ValueError):
            return False

    until(sums_up)


def alive_again(run: LocalRun, words: tuple[str, ...], old: int) -> bool:
    try:
        return run.find(*words).pid != old
    except (StopIteration, psutil.NoSuchProcess):
        return False


def test_nothing_is_left_when_the_supervisor_is_killed(started: Callable[..., LocalRun]) -> None:
    run = started()
    run.ready()
    assert len(run.processes) > 6
    run.process.kill()
    run.process.wait()
    until(lambda: run.left() == [])
    started().ready()


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


def test_a_second_run_in_the_same_folder_is_told(started: Callable[..., LocalRun]) -> None:
    first = started()
    first.ready()
    assert "already uses" in refused(started(home="home/../home"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--app", "nowhere.tasks:app"), "There is no module nowhere.tasks"),
        (("--app", "local_app.tasks:missing"), "There is no application 'local_app.tasks:missing'"),
        (("--app", "local_app.tasks:broker"), "is no application but a str"),
        (("--seed", "local_app.seed:missing"), "The seed 'local_app.seed:missing' cannot be imported"),
        (("--worker", "io=default"), "No task uses the queue 'default'"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    started: Callable[..., LocalRun], options: tuple[str, ...], told: str
) -> None:
    run = started(*options)
    assert told in refused(run)
    assert "Traceback" not in run.printed()
    assert run.left() == []


def test_it_can_be_stopped_while_it_starts(started: Callable[..., LocalRun]) -> None:
    run = started()
    until(lambda: "Preparing" in run.printed())
    assert run.stop() == 0
    assert run.left() == []
