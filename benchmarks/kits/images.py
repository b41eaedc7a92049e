"""`python -m benchmarks.kits.images`: photographs made smaller in a second, beside Pillow used plainly.

Plainly is what is written first: `exif_transpose`, `resize`, `save`, in the process that asks. Ours decodes
in child processes, one after the other and as many at a time as there are processors. The photographs are
drawn, the same ones in each run, held sideways and with a camera's metadata. Rates are by the clock and by
processor time, which others who use the machine do not change. Memory is what the decoding process held at
the most. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import psutil
import typer
from PIL import Image, ImageOps

from errands.kits.images import PillowImages, Variant

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from pictures import encoded, photo

BOX = (1920, 1080)
FORMATS = ("jpeg", "webp", "avif")


def main(
    images: Annotated[int, typer.Option(min=2, help="Photographs for each row.")] = 24,
    megapixels: Annotated[int, typer.Option(min=1)] = 12,
) -> None:
    """Measure, print, and say it as JSON."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    data = encoded(photo(width, width * 3 // 4), quality=92, exif=exif)
    found = {"MB of a photograph": len(data) / 1e6}
    # A process of its own: peak memory is never less than it was.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        rate, of_processor, peak = process.submit(_alone, plainly, data, images).result()
    found |= {
        "Pillow plainly: images/s": rate,
        "Pillow plainly: images/s of processor time": of_processor,
        "Pillow plainly: MB at the most": peak,
    }
    found |= asyncio.run(_ours(data, images))
    for name, value in found.items():
        print(f"{name:48}{value:>10,.2f}")
    print(json.dumps(found))


async def _ours(data: bytes, images: int) -> dict[str, float]:
    found = {}
    one = PillowImages(processes=1)
    await one.compress(data)  # starts the process
    began, busy = time.perf_counter(), _busy()
    for _ in range(images):
        await one.compress(data, Variant(max_size=BOX))
    found["ours, one at a time: images/s"] = images / (time.perf_counter() - began)
    found["ours, one at a time: images/s of processor time"] = images / (_busy() - busy)
    peaks = [_peak(child.pid) for child in psutil.Process().children()]
    found["ours, one at a time: MB at the most"] = max(peaks)
    for form in FORMATS[1:]:
        began = time.perf_counter()
        for _ in range(images // 4 + 1):
            await one.compress(data, Variant(max_size=BOX, format=form))  # type: ignore[arg-type]
        found[f"ours, to {form}: images/s"] = (images // 4 + 1) / (time.perf_counter() - began)
    began = time.perf_counter()
    sizes = [Variant(max_size=(side, side)) for side in (1600, 800, 400, 100)]
    for _ in range(images // 2):
        await one.compress(data, *sizes)
    found["ours, four sizes of each: images/s"] = images // 2 / (time.perf_counter() - began)
    await one.aclose()
    all_at_once = PillowImages()
    await asyncio.gather(*(all_at_once.compress(data) for _ in range(os.cpu_count() or 1)))
    began = time.perf_counter()
    await asyncio.gather(*(all_at_once.compress(data, Variant(max_size=BOX)) for _ in range(images)))
    found[f"ours, {os.cpu_count()} at a time: images/s"] = images / (time.perf_counter() - began)
    await all_at_once.aclose()
    return found


def plainly(data: bytes) -> bytes:
    """What is written first."""
    image = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    scale = min(1.0, BOX[0] / image.width, BOX[1] / image.height)
    size = round(image.width * scale), round(image.height * scale)
    file = BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=85)
    return file.getvalue()


def _alone(work: Callable[[bytes], bytes], data: bytes, images: int) -> tuple[float, float, float]:
    work(data)
    began, busy = time.perf_counter(), _busy()
    for _ in range(images):
        work(data)
    return images / (time.perf_counter() - began), images / (_busy() - busy), _peak(os.getpid())


def _busy() -> float:
    """Seconds of processor time of this process and of all that it has started."""
    found = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        found += times.user + times.system
    return found


def _peak(pid: int) -> float:
    """Megabytes that a process held at the most (Linux). Not `ru_maxrss`, which begins with its parent's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    typer.run(main)
