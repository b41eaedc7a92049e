"""The program of a typesetter: a process of its own that sets one document after the other with typst.

`typesetters.py` starts it by its path; it imports nothing but typst, so it starts fast and stays small. On
both pipes a message is a line of JSON with the `size` of what follows, and that many bytes.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO


def main() -> None:
    """Set what comes on standard input until it ends: the parent is done, or dead."""
    setup = json.loads(sys.argv[1])
    sys.path.append(setup["packages"])
    import typst

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside of typst
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (setup["memory"],) * 2)
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=setup["fonts"])
    compilers: dict[str, typst.Compiler] = {}
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := orders.readline():
        order = json.loads(line)
        data = orders.read(order["size"]).decode()
        signal.alarm(order["seconds"])
        # By its path: a compiler that is given bytes works only once.
        compiler = compilers.get(order["template"]) or typst.Compiler(
            str(Path(setup["root"], order["template"])),
            root=setup["root"], font_paths=fonts, ignore_system_fonts=True,
        )  # fmt: skip
        compilers[order["template"]] = compiler
        made, answer = _set(compiler, order, data)
        signal.alarm(0)
        _answer(answers, {**answer, "size": len(made), "resident": _resident()}, made)


def _set(compiler: Any, order: dict[str, Any], data: str) -> tuple[bytes, dict[str, Any]]:
    import typst

    try:
        made, warnings = compiler.compile_with_warnings(sys_inputs={"data": data}, **order["options"])
    except typst.TypstError as error:
        return b"", {"error": error.message, "diagnostic": error.diagnostic}
    if isinstance(made, list):
        made = made[0]
    return made, {"warnings": [warning.message for warning in warnings]}


def _resident() -> int:
    """Bytes of memory that this process holds now; its peak where that is not told."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _answer(pipe: BinaryIO, header: dict[str, Any], data: bytes) -> None:
    pipe.write(json.dumps(header).encode() + b"\n" + data)
    pipe.flush()


if __name__ == "__main__":
    # Who waits for the answer is gone.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
