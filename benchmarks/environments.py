"""The peers' own environments, made on first use from pinned, hashed requirements.

Peers want other versions of redis-py than Errands does, and must not be measured with Errands' packages.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.contender import NotThere

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv" / "benchmarks"
_STAMP = "installed"
_LAST_WORDS = 600
_VERSIONS = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps([version(name) for name in sys.argv[1:]]))"
)


@cache
def python(name: str) -> Path:
    """The interpreter of an environment; this process's own for the empty name.

    Args:
        name: of `requirements/<name>.txt`.

    Raises:
        NotThere: it cannot be installed.
    """
    if not name:
        return Path(sys.executable)
    pinned, folder = ROOT / "requirements" / f"{name}.txt", FOLDER / name
    wanted = hashlib.sha256(pinned.read_bytes()).hexdigest()
    stamp = folder / _STAMP
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {pinned.relative_to(ROOT)} into {folder}; this happens once.", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder, pinned)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def executable(name: str, program: str) -> str:
    """The path of a program of that environment."""
    return program if "/" in program else str(python(name).with_name(program))


@cache
def versions(name: str, *packages: str) -> dict[str, str]:
    """The versions of these packages in that environment."""
    done = subprocess.run(
        [python(name), "-c", _VERSIONS, *packages], capture_output=True, text=True, check=True
    )
    return dict(zip(packages, json.loads(done.stdout), strict=True))


def _install(folder: Path, pinned: Path) -> None:
    interpreter = folder / "bin" / "python"
    if uv := shutil.which("uv"):
        # The same Python as Errands': a peer must not be faster or slower by its interpreter.
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        _run(
            uv, "pip", "install", "--quiet", "--python", str(interpreter), "--compile-bytecode",
            "--require-hashes", "-r", str(pinned),
        )  # fmt: skip
        return
    _run(sys.executable, "-m", "venv", str(folder))
    _run(
        str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--require-hashes", "-r", str(pinned),
    )  # fmt: skip


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotThere(f"cannot be installed: {done.stderr[-_LAST_WORDS:].strip()}")
