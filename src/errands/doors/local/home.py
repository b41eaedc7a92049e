"""The folder in which a local run keeps everything (`ERRANDS_HOME`): data, mails, files, logs and secrets."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from errands.doors.local.errors import LocalRunError
from errands.doors.local.ports import free_port

# A run that was killed leaves a watchdog that ends its processes; the next run waits that long for it.
LOCK_WAIT_SECONDS = 8.0


class Home:
    """One such folder. `open()` makes it ready, for this user alone, and for one run at a time.

    >>> home = Home(Path(".errands"))   # nothing is touched yet
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().resolve()
        self.lock_descriptor = -1

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def access_file(self) -> Path:
        """`access.json`: addresses and sign-in, there while everything answers."""
        return self.path / "access.json"

    def open(self) -> None:
        """Makes the folder and takes its lock. LocalRunError if it cannot be written or is in use."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("files", "logs", "mail", "run", "valkey", "webhooks"):
                (self.path / name).mkdir(exist_ok=True, mode=0o700)
            self.lock_descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LocalRunError(
                f"Cannot write to the folder {self.path} ({error.strerror}); "
                "choose another one with ERRANDS_HOME or --home."
            ) from None
        self._lock()
        self.access_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the lock back; a process that inherited it still holds it."""
        if self.lock_descriptor >= 0:
            os.close(self.lock_descriptor)
            self.lock_descriptor = -1

    def _lock(self) -> None:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self.lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self._holder()
                if _alive(holder) or time.monotonic() > deadline:
                    self.close()
                    raise LocalRunError(
                        f"A local run (process {holder}) already uses {self.path}; "
                        "stop it, or choose another folder with ERRANDS_HOME or --home."
                    ) from None
                time.sleep(0.05)
        os.ftruncate(self.lock_descriptor, 0)
        os.pwrite(self.lock_descriptor, str(os.getpid()).encode(), 0)

    def _holder(self) -> int:
        text = os.pread(self.lock_descriptor, 20, 0)
        return int(text) if text.isdigit() else 0

    def ports(self, names: tuple[str, ...]) -> dict[str, int]:
        """A free port for each name: the one of the last run where it is free still.

        Addresses that are kept in the application's data, a webhook's for instance, so stay true.
        """
        path = self.path / "ports.json"
        last = read_json(path, {})
        taken: set[int] = set()
        ports: dict[str, int] = {}
        for name in names:
            ports[name] = free_port(last.get(name), avoid=frozenset(taken))
            taken.add(ports[name])
        write_private(path, json.dumps(ports))
        return ports

    def secret_keys(self) -> str:
        """The key that seals secret arguments, as `id:base64` of 32 random bytes; made once and kept."""
        return self._kept("secret_keys", f"local1:{base64.b64encode(secrets.token_bytes(32)).decode()}")

    def admin_token(self) -> str:
        """What opens the run endpoints of an application without people of its own; made once and kept."""
        return self._kept("admin_token", secrets.token_urlsafe(32))

    def _kept(self, name: str, new: str) -> str:
        path = self.path / name
        if not path.exists():
            write_private(path, new + "\n")
        return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step; only its owner can read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def read_json(path: Path, default: Any) -> Any:
    """What a JSON file of ours holds; `default` where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def _alive(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
