"""Children with limits: real memory bombs, segmentation faults, endless loops, killed parents."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from errands import ConfigurationError
from errands.children import (
    MIB,
    CallFailed,
    CallRefused,
    ChildCrashed,
    ChildError,
    Children,
    LimitReached,
    Limits,
    serve,
)
from processes import ROOT, SAMPLE, until

sys.path.append(str(SAMPLE))
import child_work

Make = Callable[..., Children]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.syspath_prepend(str(SAMPLE))
    made: list[Children] = []

    def start(size: int = 1, raises: tuple[type[Exception], ...] = (), **limits: float) -> Children:
        given = {"memory": 128 * MIB, "seconds": 60, "cpu_seconds": 60} | limits
        made.append(Children("test", Limits(**given), size=size, raises=raises))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for each in made:
        each.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# -- calls


@pytest.mark.parametrize(
    "value", [None, True, -(2**62), 0.5, "Zoë 学校", b"\x00\xff", [1, [2]], {"a": {"b": [None]}}]
)
def test_plain_data_comes_and_goes_as_it_is(make: Make, value: object) -> None:
    assert make().call("child_work:echo", value) == value


def test_megabytes_come_and_go(make: Make) -> None:
    data = os.urandom(20 * MIB)
    assert make(memory=512 * MIB).call("child_work:echo", data) == data


def test_a_child_is_used_again(make: Make) -> None:
    children = make()
    assert len({children.call("child_work:pid") for _ in range(20)}) == 1


async def test_async_calls_are_made_side_by_side(make: Make) -> None:
    children = make(size=2)
    before = time.monotonic()
    pids = await asyncio.gather(*(children.acall("child_work:pid_after", 0.5) for _ in range(4)))
    assert time.monotonic() - before >= 0.9  # two by two
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


def test_threads_share_the_children(make: Make) -> None:
    children = make(size=2)
    with ThreadPoolExecutor(8) as threads:
        pids = list(threads.map(lambda _: children.call("child_work:pid_after", 0.02), range(24)))
    assert 1 <= len(set(pids)) <= 2


def test_one_object_serves_several_event_loops(make: Make) -> None:
    children = make()
    assert asyncio.run(children.acall("child_work:echo", 1)) == 1
    assert asyncio.run(children.acall("child_work:echo", 2)) == 2
    assert children.call("child_work:echo", 3) == 3


def test_arguments_that_are_no_plain_data_are_refused(make: Make) -> None:
    with pytest.raises(CallRefused, match=r"test: the arguments of child_work:echo are no plain data"):
        make().call("child_work:echo", object())


# -- errors of the function


def test_an_error_comes_with_its_kind_text_and_trace(make: Make) -> None:
    children = make()
    with pytest.raises(CallFailed) as caught:
        children.call("child_work:fail", "it was wet")
    assert (caught.value.kind, caught.value.text) == ("builtins.ValueError", "it was wet")
    assert "in fail" in caught.value.trace


def test_an_error_that_is_expected_comes_as_itself(make: Make) -> None:
    with pytest.raises(child_work.Unwelcome, match="no"):
        make(raises=(child_work.Unwelcome,)).call("child_work:refuse", "no")


@pytest.mark.parametrize("name", ["child_work:nothing_of_the_kind", "no_module_of_this_name:f", "child_work"])
def test_a_name_that_leads_nowhere_is_an_error_of_the_call(make: Make, name: str) -> None:
    children = make()
    with pytest.raises(CallFailed):
        children.call(name)
    assert children.call("child_work:echo", 1) == 1


def test_an_answer_that_is_no_plain_data_is_an_error_of_the_call(make: Make) -> None:
    with pytest.raises(CallFailed, match="TypeError"):
        make().call("child_work:no_data")


# -- limits


@LINUX
def test_a_memory_bomb_ends_its_own_call_only(make: Make) -> None:
    children = make()
    with pytest.raises(LimitReached, match="more than the 128 MiB of memory") as caught:
        children.call("child_work:memory_bomb")
    assert caught.value.limit == "memory"
    assert children.call("child_work:echo", 1) == 1


@LINUX
def test_memory_that_a_c_library_takes_counts(make: Make) -> None:
    taken = make().call("child_work:memory_bomb_outside_python")
    assert 0 < taken < 128 * MIB


@LINUX
def test_an_answer_larger_than_the_memory_is_an_error_of_the_call(make: Make) -> None:
    children = make()
    with pytest.raises(ChildError):
        children.call("child_work:large", 100 * MIB)
    assert children.call("child_work:echo", 1) == 1


def test_an_endless_loop_runs_out_of_processor_time(make: Make) -> None:
    children = make(cpu_seconds=1)
    with pytest.raises(LimitReached, match="1 s of processor time") as caught:
        children.call("child_work:compute_for_ever")
    assert caught.value.limit == "cpu_seconds"
    assert children.call("child_work:echo", 1) == 1


def test_processor_time_is_counted_for_each_call(make: Make) -> None:
    children = make(cpu_seconds=2)
    pids = {children.call("child_work:compute_for", 0.8) for _ in range(5)}
    assert len(pids) == 1


def test_a_call_that_waits_runs_out_of_time(make: Make) -> None:
    children = make(seconds=1)
    pid = children.call("child_work:pid")
    with pytest.raises(LimitReached, match="not done within 1 s") as caught:
        children.call("child_work:sleep_holding_the_interpreter")
    assert caught.value.limit == "seconds"
    assert gone(pid)
    assert children.call("child_work:echo", 1) == 1


@pytest.mark.parametrize(
    "limits", [{"memory": 1}, {"seconds": 0}, {"cpu_seconds": -1}, {"calls": 0}, {"idle": 0}]
)
def test_limits_too_small_to_work_with_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Limits(**limits)  # type: ignore[arg-type]


# -- crashes


@pytest.mark.parametrize(("name", "number"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_crash_names_its_signal_and_its_place(make: Make, name: str, number: str) -> None:
    children = make()
    with pytest.raises(ChildCrashed, match=number) as caught:
        children.call(f"child_work:{name}")
    assert caught.value.signal == number
    assert not caught.value.may_pass
    assert f"in {name}" in caught.value.words
    assert children.call("child_work:echo", 1) == 1


def test_a_process_that_leaves_is_an_error_of_the_call(make: Make) -> None:
    with pytest.raises(ChildCrashed, match="left with code 3"):
        make().call("child_work:leave", 3)


async def test_a_child_that_others_kill_is_an_error_of_the_call(make: Make) -> None:
    children = make()
    pid = await children.acall("child_work:pid")
    call = asyncio.ensure_future(children.acall("child_work:sleep", 600))
    await asyncio.to_thread(until, lambda: children._busy)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildCrashed, match="SIGKILL") as caught:
        await call
    assert caught.value.may_pass


def test_a_child_that_died_between_calls_is_replaced(make: Make) -> None:
    children = make()
    pid = children.call("child_work:pid")
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    assert children.call("child_work:pid") != pid


# -- replaced, ended


def test_a_child_is_replaced_after_so_many_calls(make: Make) -> None:
    children = make(calls=3)
    pids = [children.call("child_work:pid") for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert all(gone(pid) for pid in pids[:6])


def test_a_child_is_replaced_when_it_has_grown(make: Make) -> None:
    children = make(keep=40 * MIB)
    small = children.call("child_work:keep", MIB)
    grown = children.call("child_work:keep", 40 * MIB)
    assert small == grown
    assert children.call("child_work:pid") != grown


def test_a_child_without_work_ends_by_itself(make: Make) -> None:
    children = make(idle=0.2)
    pid = children.call("child_work:pid")
    until(lambda: gone(pid))
    assert children.call("child_work:pid") != pid


def test_a_child_that_leaves_as_it_is_called_has_not_begun(make: Make) -> None:
    """Its exit code says so; the call is made by others, but not without an end."""
    children = make()
    pid = children.call("child_work:pid")
    with pytest.raises(CallRefused, match="end before they are called"):
        children.call("child_work:leave", serve.IDLE)
    assert gone(pid)
    assert children.call("child_work:echo", 1) == 1


async def test_cancelling_kills_the_child(make: Make) -> None:
    children = make()
    pid = await children.acall("child_work:pid")
    call = asyncio.ensure_future(children.acall("child_work:sleep_holding_the_interpreter"))
    await asyncio.to_thread(until, lambda: children._busy)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(until, lambda: gone(pid), 5)
    assert await children.acall("child_work:echo", 1) == 1


async def test_a_call_that_is_cancelled_while_it_waits_is_never_made(make: Make, tmp_path: Path) -> None:
    children = make(size=1)
    first = asyncio.ensure_future(children.acall("child_work:pid_after", 0.5))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(children.acall("child_work:leave", 3))
    await asyncio.sleep(0)
    second.cancel()
    pid = await first
    assert await children.acall("child_work:pid") == pid  # nobody had it leave


async def test_closing_ends_calls_and_refuses_later_ones(make: Make) -> None:
    children = make(size=2)
    pid = await children.acall("child_work:pid")
    call = asyncio.ensure_future(children.acall("child_work:sleep", 600))
    await asyncio.to_thread(until, lambda: children._busy)
    await children.aclose()
    with pytest.raises(ChildError):
        await call
    assert gone(pid)
    with pytest.raises(CallRefused, match="was closed"):
        children.call("child_work:pid")


def test_an_error_raised_in_a_waiting_thread_ends_the_call(make: Make) -> None:
    """As a soft time limit or a revocation does to a plain task of the asyncio pool."""
    import ctypes

    children, seen = make(), []

    def work() -> None:
        try:
            children.call("child_work:sleep", 600)
        except KeyError as error:
            seen.append(error)

    pid = children.call("child_work:pid")
    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: children._busy)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyError))
    thread.join(10)
    assert seen
    assert gone(pid)


# -- no orphans

_PARENT = """
import os, sys, threading
from errands.children import Children, Limits
children = Children("parent", Limits(memory=128 * 1024 * 1024, programs=True), size=2)
print(children.call("child_work:pid"), flush=True)
if sys.argv[1] == "forked":  # a sibling that holds whatever the parent had open
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        threading.Event().wait(600)
threading.Thread(target=children.call, args=("child_work:" + sys.argv[2], *sys.argv[3:])).start()
threading.Event().wait(600)
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT / "src"), str(SAMPLE)])
    return subprocess.Popen(
        [sys.executable, "-c", _PARENT, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )


def ended(parent: subprocess.Popen[str], *others: int) -> None:
    parent.kill()
    parent.wait()
    assert parent.stdout is not None
    parent.stdout.close()
    for pid in others:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("doing", ["sleep_holding_the_interpreter", "compute_for_ever", "pid"])
@pytest.mark.parametrize("how", ["plain", "forked"])
def test_a_child_ends_with_its_parent(how: str, doing: str) -> None:
    parent = started(how, doing)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    sibling = int(parent.stdout.readline()) if how == "forked" else None
    try:
        if doing == "sleep_holding_the_interpreter" and sys.platform == "linux":
            where = Path(f"/proc/{child}/wchan")  # "0" where it is not told to others
            until(lambda: "nanosleep" in (text := where.read_text()) or text == "0", what="it sleeps")
        elif doing == "compute_for_ever":
            until(lambda: psutil.Process(child).cpu_times().user > 0.3, what="it computes")
        assert not gone(child)
        parent.kill()
        parent.wait()
        until(lambda: gone(child), 5, "the child ends with its parent")
        assert sibling is None or not gone(sibling)
    finally:
        ended(parent, *filter(None, (child, sibling)))


def test_a_forked_process_has_children_of_its_own(make: Make) -> None:
    children = make()
    ours = children.call("child_work:pid")
    reading, writing = os.pipe()
    if os.fork() == 0:  # as Celery makes its processes
        try:
            os.write(writing, str(children.call("child_work:pid")).encode())
            children.close()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs = int(told.read())
    os.wait()
    assert theirs != ours
    assert children.call("child_work:pid") == ours


def running(*command: str) -> list[int]:
    """The processes that run this command."""
    return [each.pid for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == list(command)]


def test_a_child_may_start_programs_where_it_is_told_so(make: Make) -> None:
    children = make(programs=True)
    assert children.call("child_work:run_a_program", "cat") == [0, "what it reads"]
    assert children.call("child_work:run_a_program", "false") == [1, ""]


def test_a_program_ends_with_the_call_that_started_it(make: Make) -> None:
    children = make(programs=True, seconds=1)
    with pytest.raises(LimitReached):
        children.call("child_work:wait_for_a_program", "599.25")
    until(lambda: not running("sleep", "599.25"), 5, "the program is gone")


@LINUX
def test_a_program_ends_with_the_parent_of_its_child() -> None:
    parent = started("plain", "wait_for_a_program", "599.75")
    try:
        until(lambda: running("sleep", "599.75"), what="the program runs")
        parent.kill()
        until(lambda: not running("sleep", "599.75"), 5, "the program is gone")
    finally:
        ended(parent)


# -- prepared


def test_a_child_prepares_itself_before_it_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SAMPLE))
    children = Children("test", size=1, prepare="child_work:prepare")
    assert [children.call("child_work:prepared") for _ in range(2)] == [["yes"], ["yes"]]
    children.close()


def test_a_child_that_cannot_prepare_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SAMPLE))
    children = Children("test", size=1, prepare="child_work:nothing_of_the_kind")
    with pytest.raises(ChildCrashed, match="nothing_of_the_kind"):
        children.call("child_work:pid")
    children.close()


# -- what a child may not do


def test_a_child_does_not_get_our_environment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRANDS_SECRET_KEYS", "1:c2VjcmV0")
    assert not [name for name in make().call("child_work:environment") if name.startswith("ERRANDS_")]


@LINUX
def test_a_child_may_read_and_little_else(make: Make, tmp_path: Path) -> None:
    secret = tmp_path / "file"
    secret.write_text("as it was")
    signalled = []
    before = signal.signal(signal.SIGUSR1, lambda *_: signalled.append(1))
    try:
        tried = make().call("child_work:attempts", str(tmp_path), str(secret), os.getpid())
    finally:
        signal.signal(signal.SIGUSR1, before)
    refused = {name for name, what in tried.items() if what == "PermissionError"}
    # By seccomp, which every kernel of the last ten years has.
    assert refused >= {"connect", "datagram", "run"}
    assert (tried["read"], tried["nowhere"]) == ("allowed", "allowed")
    if not refused >= {"write"}:
        pytest.skip("this kernel has no Landlock")
    assert refused >= {"write", "delete", "overwrite", "mkdir", "spy"}
    assert secret.read_text() == "as it was"
    assert sorted(tmp_path.iterdir()) == [secret]
    assert bool(signalled) == (tried["signal"] == "allowed")  # by kernels before 6.12
