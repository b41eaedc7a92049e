"""Rows of an XLSX file, read by a process of its own: what unpacks to gigabytes takes only that one along."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from errands import ConfigurationError
from errands.kits.tables.errors import FileRefused
from errands.kits.tables.limits import Limits
from errands.kits.tables.raw import Reason

_PROGRAM = Path(__file__).with_name("sheet_child.py")
_MOST_FILES = 10_000
# XML of numbers is packed to a twentieth. A bomb is packed a thousandfold; small files may be anything.
_MOST_RATIO = 200
_SMALL = 16 * 1024 * 1024
_cells = msgspec.json.Decoder(list[str])


def rows(path: Path, limits: Limits, sheet: str | None = None) -> Iterator[tuple[int, list[str] | Reason]]:
    """The cells of each row, with its number. A cell is a text, as a CSV file would have it: numbers without
    a zero fraction, times in ISO 8601, the value that was last calculated in place of a formula.

    Args:
        path: the file.
        limits: see there.
        sheet: the name of the sheet; by default the first one.

    Raises:
        FileRefused: it is no XLSX file, is over a limit, or could not be read within the limits.
    """
    _check(path, limits)
    command = [
        sys.executable, "-I", str(_PROGRAM), str(path), sheet or "", str(limits.rows + 1),
        str(limits.columns), str(limits.memory), str(limits.seconds),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert child.stdout is not None  # noqa: S101
        ended = False
        try:
            for number, line in enumerate(child.stdout, start=1):
                if line.endswith(b"\n"):
                    yield number, _cells.decode(line)
            ended = True
        finally:
            if not ended:
                child.kill()
            child.stdout.close()
            code = child.wait()
        if code != 0:
            errors.seek(0)
            _explain(code, errors.read()[-2000:].decode("utf-8", "replace").strip())


def _check(path: Path, limits: Limits) -> None:
    """What can be told from the directory of the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FileRefused(f"this is no XLSX file: {error}") from None
    names = {part.filename for part in parts}
    if "[Content_Types].xml" not in names or not any(name.startswith("xl/") for name in names):
        raise FileRefused("this is an archive and no XLSX file: unpack it, and import what is in it")
    unpacked = sum(part.file_size for part in parts)
    if len(parts) > _MOST_FILES or unpacked > limits.unpacked:
        raise FileRefused(
            f"the XLSX file has {unpacked:,} bytes when it is unpacked; {limits.unpacked:,} is the limit"
        )
    if unpacked > _SMALL and unpacked > _MOST_RATIO * path.stat().st_size:
        raise FileRefused("the XLSX file unpacks to far more than any table does: it is not read")
    if any(part.flag_bits & 1 for part in parts):
        raise FileRefused("the XLSX file is protected: save it without a password")


def _explain(code: int, errors: str) -> None:
    last = errors.splitlines()[-1] if errors else ""
    if code == 3:
        raise FileRefused(last)
    if "No module named 'python_calamine'" in errors:
        raise ConfigurationError("reading XLSX needs python-calamine: pip install 'errands[tables]'")
    # Out of memory, out of time, or beyond what the reader can take: the file's doing in each case.
    raise FileRefused(
        "the XLSX file could not be read within its limits of memory and time; save the table as CSV"
        + (f" ({last[:200]})" if last else "")
    )
