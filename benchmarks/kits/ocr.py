"""`python -m benchmarks.kits.ocr`: how many characters of our letters each engine gets wrong, and how fast.

The letters (`tests/letters.py`) are drawn, the same ones in each run: as they leave the printer, askew,
noisy, in low resolution, photographed. An error is a character to insert, delete or change, as a share of
those that are written. With `--plain` each page is also given to the engine as it came, which shows what
preparing it is good for. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from errands.kits.ocr import LocalOcr
from errands.kits.ocr.engines import engine
from errands.kits.ocr.installed import find

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from letters import KINDS, Letter, error_rate, letter
from pictures import encoded


def main(
    letters: Annotated[int, typer.Option(min=1, help="Letters of each kind.")] = 8,
    plain: Annotated[bool, typer.Option("--plain", help="Also without preparing the pages.")] = False,
) -> None:
    """Measure, print, and say it as JSON."""
    drawn = {kind: [letter(number, kind) for number in range(letters)] for kind in KINDS}
    found: dict[str, float] = {}
    for name in ("tesserocr", "tesseract"):
        if name == "tesseract" and shutil.which(name) is None:
            print("there is no program tesseract on PATH: left out")
            continue
        if plain:
            found |= _plain(name, drawn)
        found |= asyncio.run(_prepared(name, drawn))
    for label, value in found.items():
        print(f"{label:56}{value:>10.2f}")
    print(json.dumps(found))


async def _prepared(name: str, drawn: dict[str, list[Letter]]) -> dict[str, float]:
    ocr = LocalOcr(name, processes=1)  # type: ignore[arg-type]
    await ocr.read(encoded(drawn["low"][0].image, "PNG"))  # starts the process
    found: dict[str, float] = {}
    for kind, letters in drawn.items():
        files = [encoded(each.image, "PNG") for each in letters]
        began = time.perf_counter()
        readings = [await ocr.read(file) for file in files]
        seconds = (time.perf_counter() - began) / len(files)
        rates = [error_rate(r.text, each.text) for r, each in zip(readings, letters, strict=True)]
        found[f"{name}, {kind}: % of characters wrong"] = 100 * sum(rates) / len(rates)
        found[f"{name}, {kind}: seconds a page"] = seconds
    await ocr.aclose()
    return found


def _plain(name: str, drawn: dict[str, list[Letter]]) -> dict[str, float]:
    there = find(name, "eng", None)
    reader = engine(there.engine, there.program, there.tessdata, there.languages)
    found = {}
    for kind, letters in drawn.items():
        rates = [error_rate(reader.recognise(each.image.convert("L")).text, each.text) for each in letters]
        found[f"{name}, {kind}, not prepared: % of characters wrong"] = 100 * sum(rates) / len(rates)
    return found


if __name__ == "__main__":
    typer.run(main)
