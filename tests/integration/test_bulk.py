"""A hundred thousand runs in one call: all accepted, in the memory of a chunk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Settings
from processes import ROOT

_RUNS = 100_000
_MEBIBYTE = 1024 * 1024
# Run in a process of its own, so that nothing else counts. What all of them would weigh at once is told too.
_PROGRAM = """
import json, resource, sys
from errands import Errands

app = Errands("bulk", set_as_current=False)

@app.task(name="add")
def add(x: int, word: str) -> None: ...

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def calls(count):
    return ((n, "a word or two") for n in range(count))

patient = {"max_retries": 100}  # of a machine that is busy with other tests
add.delay_many(calls(2000), retry_policy=patient)
before = peak()
ids = add.delay_many(calls(int(sys.argv[1])), retry_policy=patient)
print(json.dumps({"ids": [ids[0], ids[-1]], "different": len(set(ids)), "grown": peak() - before}))
"""


def waiting(app: Errands) -> int:
    return int(app.valkey.xlen(f"{app.settings.key_prefix}q:celery:normal"))


def test_a_hundred_thousand_runs_need_the_memory_of_a_chunk(
    valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix)
    app = Errands("bulk", settings=settings, set_as_current=False)
    environment = {
        "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_KEY_PREFIX": key_prefix, "ERRANDS_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT / "src"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(_RUNS)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["different"] == _RUNS
    assert waiting(app) == _RUNS + 2000
    # The ids weigh some ten, the set that counts them another four; the messages would weigh 100 and more.
    assert told["grown"] < 30 * _MEBIBYTE
    found = app.live.get_many(told["ids"])
    assert [found[run_id].facts["args"][0] for run_id in told["ids"]] == [0, _RUNS - 1]


def test_calls_that_are_accepted_twice_are_done_once(
    valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """A caller that died half-way begins again: ids of its own make the second half the only new one."""
    settings = Settings(home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix)
    app = Errands("bulk", settings=settings, set_as_current=False)

    @app.task(name="add")
    def add(x: int) -> None: ...

    def some(most: int) -> Iterator[Any]:
        for n in range(2000):
            if n == most:
                raise KeyboardInterrupt
            yield add.s(n).set(task_id=f"import-7-{n}")

    with pytest.raises(KeyboardInterrupt):
        add.delay_many(some(1250), chunk=100, retry_policy={"max_retries": 100})
    assert waiting(app) == 1200
    add.delay_many(some(2001), chunk=100, retry_policy={"max_retries": 100})
    assert waiting(app) == 2000
