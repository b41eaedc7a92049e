"""Where the outside checks keep their things; all but the kept lists is in a folder that git does not see."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

PINS = ROOT / "requirements" / "outside.txt"
STOCK = HERE / "stock.json"
ALLOWED = HERE / "allowed.toml"
ADDED = HERE / "added"

CACHE = ROOT / ".outside"
ARCHIVES = CACHE / "archives"
JOBS = CACHE / "jobs"
