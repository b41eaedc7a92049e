"""The source distributions of Celery and kombu: fetched once by pip, checked by hash, their tests unpacked.

The wheels, which `.venv` has, hold no tests. Only the tests are unpacked, so that `import celery` finds what
is installed and never a second copy.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from places import ARCHIVES, CACHE, PINS

_PIN = re.compile(r"^(\S+)==(\S+)((?:\s*\\\n\s+--hash=sha256:[0-9a-f]{64})+)", re.M)
_WANTED = re.compile(r"^[^/]+/(t/(integration/.*|[^/]+\.py)|pyproject\.toml|setup\.cfg)$")


class OutsideError(Exception):
    """The outside checks cannot run; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """One pinned source distribution."""

    name: str
    version: str
    hashes: frozenset[str]

    @property
    def archive(self) -> Path:
        return ARCHIVES / f"{self.name}-{self.version}.tar.gz"

    def is_there(self) -> bool:
        """Whether the archive is in the cache, unharmed."""
        return self.archive.exists() and _digest(self.archive) in self.hashes

    def unpack(self, folder: Path) -> None:
        """The tests and their configuration, into a folder that is made anew."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with tarfile.open(self.archive) as archive:
            for member in archive.getmembers():
                if member.isfile() and _WANTED.match(member.name):
                    member.name = member.name.partition("/")[2]
                    archive.extract(member, folder, filter="data")


def pinned() -> dict[str, Source]:
    """What `requirements/outside.txt` pins, by name; OutsideError where another version is installed."""
    found = {}
    for name, number, hashes in _PIN.findall(PINS.read_text()):
        if version(name) != number:
            raise OutsideError(
                f"{PINS.name} pins {name} {number}, but {version(name)} is installed, and the tests of one "
                f"version say little about another. Pin {name} {version(name)} there, with the hash of its "
                "source distribution, then keep stock's outcomes anew: make outside ARGS=--stock"
            )
        found[name] = Source(name, number, frozenset(re.findall(r"sha256:([0-9a-f]{64})", hashes)))
    return found


def fetch(sources: dict[str, Source]) -> None:
    """Download what is not in the cache; OutsideError with pip's words where that fails."""
    if all(source.is_there() for source in sources.values()):
        return
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    answer = subprocess.run(
        [_pip(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-binary", ":all:", "--require-hashes", "-r", PINS, "-d", ARCHIVES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    missing = [source.archive.name for source in sources.values() if not source.is_there()]
    if answer.returncode or missing:
        raise OutsideError(
            f"The source distributions could not be fetched ({', '.join(missing)}); where there is no "
            f"network, put them into {ARCHIVES} yourself. pip said:\n{answer.stderr.strip()[-2000:]}"
        )


def _pip() -> Path:
    """A Python that has pip: `.venv` has none where uv made it."""
    folder = CACHE / "pip"
    python = folder / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv")
        make = (
            [uv, "venv", "--quiet", "--seed", "--python", sys.executable]
            if uv
            else [sys.executable, "-m", "venv"]
        )
        answer = subprocess.run([*make, folder], capture_output=True, text=True, check=False)
        if answer.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise OutsideError(
                f"No environment with pip could be made in {folder}:\n{answer.stderr or answer.stdout}"
            )
    return python


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
