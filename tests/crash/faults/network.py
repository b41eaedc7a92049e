"""The way to the server is cut, or slow."""

from __future__ import annotations

import time

from tests.crash.history import What
from tests.crash.proxy import Proxy
from tests.crash.scenario import Fault, Stage

_CUTS = 20


def cut_connections(stage: Stage) -> None:
    """All connections of the workers, twenty times, while they work."""
    with _BehindAProxy(stage) as proxy:
        with stage.sending(rate=30, seconds=0.2):
            stage.until_seen(What.ENDED, 10)
            stage.fault()
            for _ in range(_CUTS):
                seen = stage.count(What.ENDED)
                proxy.cut()
                _some_more(stage, seen)
            stage.healed()
            stage.notes.append(f"{proxy.connections} connections lead through the proxy")
        _wait_until_done(stage)


def slow_link(stage: Stage) -> None:
    """Fifty milliseconds each way, and no more than that goes wrong."""
    with _BehindAProxy(stage) as proxy:
        proxy.delay = 0.05
        stage.notes.append(f"{proxy.connections} connections lead through the proxy")
        stage.fault()
        stage.send(40, 0.1)
        _wait_until_done(stage)


class _BehindAProxy:
    """Two workers whose way to the server leads through a proxy, inside the block."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._proxy = Proxy(stage.stack.server.port)

    def __enter__(self) -> Proxy:
        self._proxy.__enter__()
        stack = self._stage.stack
        for name in list(stack.workers):
            stack.stop_worker(name)
        direct, stack.url = stack.url, stack.url.replace(f":{stack.server.port}/", f":{self._proxy.port}/")
        self._direct = direct
        self._stage.workers(2)
        return self._proxy

    def __exit__(self, *_: object) -> None:
        stack = self._stage.stack
        for name in list(stack.workers):
            stack.stop_worker(name)
        stack.url = self._direct
        self._proxy.__exit__(None, None, None)


def _some_more(stage: Stage, seen: int) -> None:
    """Wait for some progress, but not for ever: what never comes back is found in the end."""
    deadline = time.monotonic() + 5
    while stage.count(What.ENDED) <= seen + 2 and time.monotonic() < deadline:
        stage.stack.supervise()
        time.sleep(0.05)


def _wait_until_done(stage: Stage) -> None:
    deadline = time.monotonic() + 45
    while stage.open_runs() and time.monotonic() < deadline:
        stage.stack.supervise()
        time.sleep(0.1)
    stage.until_acknowledged()


FAULTS = [
    Fault("connections cut 20 times", cut_connections, "network", bound=30),
    Fault("slow link (50 ms each way)", slow_link, "network", bound=30),
]
