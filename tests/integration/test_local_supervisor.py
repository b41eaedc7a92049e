"""The supervisor with small real processes: order, restarts, and that nothing outlives it."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from errands.doors.local.checks import file_exists
from errands.doors.local.errors import LocalRunError
from errands.doors.local.logs import Logs
from errands.doors.local.processes import Program
from errands.doors.local.supervisor import Supervisor
from errands.doors.local.watchdog_client import Watchdog

# Starts a child that ignores every polite request, as a stuck task would, and says which it is.
PARENT_OF_STUBBORN_CHILD = """
import pathlib, subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""  # noqa: E501 - a program in one line


class Run:
    """A supervisor, and what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = io.StringIO()
        self.logs = Logs(folder, self.output)
        self.watchdog = Watchdog()
        self.supervisor = Supervisor(self.logs, self.watchdog)

    def program(self, name: str, code: str, *arguments: str, ready: str | None = None) -> Program:
        return Program(
            name,
            [sys.executable, "-c", code, *arguments],
            dict(os.environ),
            ready=file_exists(self.folder / ready) if ready else None,
        )


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    made = Run(tmp_path)
    yield made
    await made.supervisor.stop()
    made.watchdog.close()
    made.logs.close()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 30 s"
        await asyncio.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_output_is_one_stream_with_names(run: Run) -> None:
    code = (
        "print('from', 'one', flush=True); import sys, time; sys.stderr.write('half a line'); time.sleep(600)"
    )
    await run.supervisor.start(run.program("one", code))
    await until(lambda: "one          | from one\n" in run.output.getvalue())
    await run.supervisor.stop()
    assert "one          | half a line\n" in run.output.getvalue()


async def test_start_returns_when_all_are_ready(run: Run) -> None:
    code = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    names = ["a", "b"]
    programs = [run.program(name, code, str(run.folder / name), ready=name) for name in names]
    await run.supervisor.start(*programs)
    assert all((run.folder / name).exists() for name in names)


async def test_a_process_that_dies_is_started_again_with_a_line_that_says_so(run: Run) -> None:
    await run.supervisor.start(run.program("steady", "import time; time.sleep(600)"))
    (process,) = run.supervisor.processes
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: process.pid not in (first, None))
    assert (
        "errands      | steady was killed by SIGKILL; it is started again in 0.5 s." in run.output.getvalue()
    )


async def test_the_children_of_a_dead_process_end_with_it(run: Run) -> None:
    await run.supervisor.start(
        run.program("parent", PARENT_OF_STUBBORN_CHILD, str(run.folder / "child"), ready="child")
    )
    child = int((run.folder / "child").read_text())
    (process,) = run.supervisor.processes
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: ended(child))


async def test_stop_leaves_nothing_however_stubborn(run: Run) -> None:
    code = PARENT_OF_STUBBORN_CHILD.replace("import pathlib", "import signal, pathlib").replace(
        "child =", "signal.signal(signal.SIGTERM, signal.SIG_IGN); child ="
    )
    await run.supervisor.start(run.program("stubborn", code, str(run.folder / "child"), ready="child"))
    (process,) = run.supervisor.processes
    parent, child = process.pid, int((run.folder / "child").read_text())
    assert parent is not None
    await run.supervisor.stop()
    assert ended(parent)
    assert ended(child)
    assert "started again" not in run.output.getvalue()


async def test_a_store_is_stopped_after_the_others(run: Run) -> None:
    code = """
import pathlib, signal, sys, time
def stop(*_):
    with pathlib.Path(sys.argv[1]).open("a") as file: file.write(sys.argv[2] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[3]).touch()
time.sleep(600)
"""
    order = run.folder / "order"
    arguments = (str(order), "store", str(run.folder / "s"))
    await run.supervisor.start_store(run.program("store", code, *arguments, ready="s"))
    arguments = (str(order), "other", str(run.folder / "o"))
    await run.supervisor.start(run.program("other", code, *arguments, ready="o"))
    await run.supervisor.stop()
    assert order.read_text().split() == ["other", "store"]


async def test_a_process_that_never_gets_ready_ends_the_start_with_its_last_words(run: Run) -> None:
    broken = run.program("broken", "import sys; sys.exit('no such table: courses')", ready="never")
    with pytest.raises(LocalRunError, match=r"broken ended with status 1 3 times.*no such table: courses"):
        await run.supervisor.start(broken)


async def test_a_program_that_is_not_there_is_told(run: Run) -> None:
    with pytest.raises(LocalRunError, match="ghost cannot be started"):
        await run.supervisor.start(Program("ghost", ["/no/such/program"], {}, ready=file_exists(run.folder)))


async def test_a_step_that_fails_gives_its_last_line(run: Run) -> None:
    command = [sys.executable, "-c", "import sys; print('working'); sys.exit('errands: it is the moon')"]
    with pytest.raises(LocalRunError, match=r"^it is the moon$"):
        await run.supervisor.run("step", command, dict(os.environ))
    await run.supervisor.run("step", [sys.executable, "-c", "print('fine')"], dict(os.environ))
    assert "step         | fine\n" in run.output.getvalue()


async def test_a_dead_watchdog_is_replaced(run: Run) -> None:
    first = run.watchdog._process.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: ended(first))
    await run.supervisor.start(run.program("one", "import time; time.sleep(600)"))
    assert run.watchdog._process.pid != first


SUPERVISED = """
import asyncio, os, pathlib, sys
from errands.doors.local.checks import file_exists
from errands.doors.local.logs import Logs
from errands.doors.local.processes import Program
from errands.doors.local.supervisor import Supervisor
from errands.doors.local.watchdog_client import Watchdog

async def main():
    folder = pathlib.Path(sys.argv[1])
    supervisor = Supervisor(Logs(folder), Watchdog())
    ready = file_exists(folder / "child")
    command = [sys.executable, "-c", sys.argv[2], str(folder / "child")]
    await supervisor.start(Program("parent", command, dict(os.environ), ready=ready))
    (folder / "parent").write_text(str(supervisor.processes[0].pid))
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISED, str(tmp_path), PARENT_OF_STUBBORN_CHILD]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as supervisor:
        await until(lambda: (tmp_path / "parent").exists() and (tmp_path / "parent").read_text() != "")
        pids = [int((tmp_path / name).read_text()) for name in ("parent", "child")]
        assert not any(ended(pid) for pid in pids)
        supervisor.kill()
    await until(lambda: all(ended(pid) for pid in pids))
