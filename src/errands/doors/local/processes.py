"""One supervised process: started in a group of its own, its output read, started again when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from errands.doors.local.errors import LocalRunError
from errands.doors.local.logs import Logs
from errands.doors.local.watchdog_client import Watchdog

FIRST_BACK_OFF = 0.5
MOST_BACK_OFF = 10.0
# A process that lived this long starts its back-off afresh.
STEADY_SECONDS = 30.0
# A process that ends this often before it was ever ready will not get better by itself.
START_ATTEMPTS = 3
READY_POLL_SECONDS = 0.05
READY_TIMEOUT_SECONDS = 60.0
LONGEST_LINE = 64 * 1024

Check = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Program:
    """What to run, and how to tell that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Check | None = None
    """Asked until it says yes; None: ready as soon as it runs."""
    before_start: Callable[[], None] | None = None
    """Called before each start, a restart too."""
    cold_stop: signal.Signals | None = None
    """What makes it drop its work and end, when SIGTERM let it go on too long."""


class Process:
    """Keeps one program running, from the moment it is made (in a running event loop) until `stop()`."""

    def __init__(self, program: Program, logs: Logs, watchdog: Watchdog, *, restart: bool = True) -> None:
        self.program = program
        self.name = program.name
        self.last_lines: deque[str] = deque(maxlen=20)
        self.return_code: int | None = None
        self.restarts = 0
        self._logs = logs
        self._watchdog = watchdog
        self._restart = restart
        self._was_ready = False
        self._stopping = asyncio.Event()
        self._running: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep_running(), name=f"keep {self.name} running")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._running.pid if self._running is not None else None

    async def wait_ready(self) -> None:
        """Returns once the program is ready; LocalRunError if it keeps ending or takes a minute."""
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not await self._is_ready():
            if self._task.done():
                await self._task
                raise LocalRunError(f"{self.name} ended before it was ready.")
            if time.monotonic() > deadline:
                raise LocalRunError(
                    f"{self.name} was not ready within {READY_TIMEOUT_SECONDS:.0f} s; "
                    f"see {self._logs.folder / self.name}.log."
                )
            await asyncio.wait({self._task}, timeout=READY_POLL_SECONDS)
        self._was_ready = True

    async def finished(self) -> int | None:
        """Waits until it is not kept running any more, and returns its last exit status.

        LocalRunError if that is because it cannot be started.
        """
        await asyncio.shield(self._task)
        return self.return_code

    async def stop(self, *, term_seconds: float, cold_seconds: float = 0.0) -> None:
        """SIGTERM, after `term_seconds` the program's `cold_stop`, after `cold_seconds` more SIGKILL."""
        self._stopping.set()
        steps: list[tuple[signal.Signals, float]] = [(signal.SIGTERM, term_seconds)]
        if self.program.cold_stop is not None:
            steps.append((self.program.cold_stop, cold_seconds))
        for number, seconds in steps:
            self._signal(number)
            await asyncio.wait({self._task}, timeout=seconds)
            if self._task.done():
                break
        else:
            self.kill()
            await asyncio.wait({self._task})
        # Why it could not be kept running has been told by whoever waited for it.
        self._task.exception()

    def kill(self) -> None:
        """Ends the whole group at once, without another start."""
        self._stopping.set()
        if self._running is not None:
            _kill_group(self._running.pid)

    async def _is_ready(self) -> bool:
        if self._running is None:
            return False
        return self.program.ready is None or await self.program.ready()

    async def _keep_running(self) -> None:
        back_off = FIRST_BACK_OFF
        while not self._stopping.is_set():
            started = time.monotonic()
            await self._run_once()
            if self._stopping.is_set() or not self._restart:
                return
            self.restarts += 1
            if not self._was_ready and self.restarts >= START_ATTEMPTS:
                raise LocalRunError(
                    f"{self.name} {self._how_it_ended()} {self.restarts} times in a row without getting "
                    f"ready; its last words: {self._last_words()}"
                )
            if time.monotonic() - started > STEADY_SECONDS:
                back_off = FIRST_BACK_OFF
            self._logs.say(
                f"{self.name} {self._how_it_ended()}; it is started again in {back_off:g} s.", problem=True
            )
            await _wait_for(self._stopping, back_off)
            back_off = min(back_off * 2, MOST_BACK_OFF)

    async def _run_once(self) -> None:
        if self.program.before_start is not None:
            self.program.before_start()
        reading, writing = os.pipe()
        try:
            running = await asyncio.create_subprocess_exec(
                *self.program.command,
                env=dict(self.program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            os.close(reading)
            raise LocalRunError(f"{self.name} cannot be started: {error}.") from None
        finally:
            os.close(writing)
        self._running = running
        self._watchdog.add(running.pid)
        if self._stopping.is_set():
            _kill_group(running.pid)
        output = asyncio.create_task(self._read(reading))
        try:
            self.return_code = await running.wait()
        finally:
            # Its own children would otherwise outlive it, and work on beside the new ones.
            _kill_group(running.pid)
            self._running = None
            self._watchdog.remove(running.pid)
            await asyncio.wait({output}, timeout=1.0)
            output.cancel()

    async def _read(self, descriptor: int) -> None:
        stream = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        rest = b""
        try:
            while chunk := await stream.read(LONGEST_LINE):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._line(line)
                if len(rest) > LONGEST_LINE:
                    self._line(rest)
                    rest = b""
        finally:
            if rest:
                self._line(rest)
            transport.close()

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        if text.strip():
            self.last_lines.append(text.strip())
            self._logs.line(self.name, text)

    def _signal(self, number: signal.Signals) -> None:
        if self._running is not None and self._running.returncode is None:
            try:
                self._running.send_signal(number)
            except ProcessLookupError:
                return

    def _how_it_ended(self) -> str:
        code = self.return_code
        if code is not None and code < 0:
            return f"was killed by {_signal_name(-code)}"
        return f"ended with status {code}"

    def _last_words(self) -> str:
        return self.last_lines[-1] if self.last_lines else "(none)"


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
