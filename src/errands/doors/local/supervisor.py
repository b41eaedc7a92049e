"""Starts processes in order, keeps them running, and ends them all, however it ends itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from errands.doors.local.errors import LocalRunError
from errands.doors.local.logs import Logs
from errands.doors.local.processes import Process, Program
from errands.doors.local.watchdog_client import Watchdog

# Everything together ends within 5 s. What stores comes last, so that the others can put back their work.
TERM_SECONDS = 2.6
COLD_SECONDS = 0.7
STORE_SECONDS = 1.0


class Supervisor:
    """The processes of one local run. Those started by `start_store` are the last to be stopped."""

    def __init__(self, logs: Logs, watchdog: Watchdog) -> None:
        self.logs = logs
        self._watchdog = watchdog
        self._stores: list[Process] = []
        self._processes: list[Process] = []

    @property
    def processes(self) -> tuple[Process, ...]:
        """All of them, in the order of their start."""
        return (*self._stores, *self._processes)

    async def start_store(self, program: Program) -> None:
        """Starts a server that the others keep their data in, and returns when it is ready."""
        await self._start([program], self._stores)

    async def start(self, *programs: Program) -> None:
        """Starts programs together and returns when all of them are ready."""
        await self._start(programs, self._processes)

    async def run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Runs a program to its end; LocalRunError with its last line if it fails."""
        process = Process(Program(name, command, environment), self.logs, self._watchdog, restart=False)
        self._processes.append(process)
        status = await process.finished()
        self._processes.remove(process)
        if status != 0:
            last = process.last_lines[-1] if process.last_lines else f"it ended with status {status}"
            raise LocalRunError(last.removeprefix("errands: "))

    async def failed(self) -> None:
        """Raises the LocalRunError of the first process that cannot be kept running, if ever one cannot."""
        await asyncio.gather(*(process.finished() for process in self.processes))

    async def stop(self) -> None:
        """Ends everything, within 5 s."""
        await asyncio.gather(
            *(p.stop(term_seconds=TERM_SECONDS, cold_seconds=COLD_SECONDS) for p in self._processes)
        )
        await asyncio.gather(*(p.stop(term_seconds=STORE_SECONDS) for p in self._stores))

    def kill(self) -> None:
        """Ends everything at once; what was written is kept, what was running begins again next time."""
        for process in self.processes:
            process.kill()

    async def _start(self, programs: Sequence[Program], group: list[Process]) -> None:
        started = [Process(program, self.logs, self._watchdog) for program in programs]
        group.extend(started)
        await asyncio.gather(*(self._report_ready(process) for process in started))

    async def _report_ready(self, process: Process) -> None:
        await process.wait_ready()
        self.logs.say(f"{process.name} is ready.")
