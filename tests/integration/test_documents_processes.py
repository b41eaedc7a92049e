"""The processes that set documents: ended in time, replaced when they grow or die, and alone."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.pdfs import text_of
from tests.processes import ROOT, until

from errands import Errands, Settings
from errands.core.errors import Discard
from errands.kits import documents as documents_kit
from errands.kits.documents import Documents, Report, Table, Text, TypesetterFailed, TypstDocuments
from errands.kits.documents.templates import OURS
from errands.worker.loop import process_loop

SHORT = Report(title="Short", sections=[])
STUCK = Report(title="Stuck", sections=[])
_STUCK = """
#let data = json(bytes(sys.inputs.data))
#if data.title == "Stuck" { for i in range(100000) { for j in range(100000) { let k = i * j } } }
"""


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Our templates, and a report that does not end where its title says so."""
    (tmp_path / "report.typ").write_text(_STUCK + (OURS / "report.typ").read_text())
    return tmp_path


@pytest.fixture
async def make(templates: Path) -> AsyncIterator[Callable[..., TypstDocuments]]:
    made: list[TypstDocuments] = []

    def build(**options: object) -> TypstDocuments:
        made.append(TypstDocuments(templates=templates, **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for documents in made:
        await documents.aclose()
        assert typesetters(documents) == []


def typesetters(of: TypstDocuments | None = None, parent: int | None = None) -> list[psutil.Process]:
    """The processes that set documents for `of`, or all of the process `parent`."""
    found = []
    for process in psutil.Process(parent).children():
        try:
            told = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "typesetter.py" in told and (of is None or of._home.name in told):
            found.append(process)
    return found


async def test_one_that_takes_too_long_is_ended_and_the_next_is_set(
    make: Callable[..., TypstDocuments],
) -> None:
    documents = make(seconds=4)
    assert await documents.report(SHORT)
    with pytest.raises(TypesetterFailed, match=r"report\.typ was not set within 4 s") as caught:
        await documents.report(STUCK)
    assert not isinstance(caught.value, Discard)
    assert await documents.report(SHORT)


async def test_who_no_longer_waits_leaves_nothing_running(make: Callable[..., TypstDocuments]) -> None:
    documents = make()
    stuck = asyncio.create_task(documents.report(STUCK))
    (process,) = await asyncio.to_thread(until, lambda: typesetters(documents))
    # It is at work: it takes the processor's time.
    await asyncio.to_thread(until, lambda: process.cpu_times().user > 0.5)
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
    await asyncio.to_thread(until, lambda: not process.is_running())
    assert await documents.report(SHORT)


async def test_a_loop_has_its_turns_while_a_document_is_set(make: Callable[..., TypstDocuments]) -> None:
    documents = make(seconds=2)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    others = asyncio.create_task(take_turns())
    with pytest.raises(TypesetterFailed):
        await documents.report(STUCK)
    others.cancel()
    assert turns > 20


async def test_one_that_dies_fails_its_document_only(make: Callable[..., TypstDocuments]) -> None:
    documents = make(processes=2)
    stuck = asyncio.create_task(documents.report(STUCK))
    (process,) = await asyncio.to_thread(until, lambda: typesetters(documents))
    await asyncio.to_thread(until, lambda: process.cpu_times().user > 0.5)
    assert await documents.report(SHORT)
    process.kill()
    with pytest.raises(TypesetterFailed, match="exit -9"):
        await stuck
    assert await documents.report(SHORT)


async def test_an_idle_one_that_was_killed_is_replaced(make: Callable[..., TypstDocuments]) -> None:
    documents = make()
    before = await documents.report(SHORT)
    (process,) = typesetters(documents)
    process.kill()
    await asyncio.to_thread(until, lambda: not documents._typesetters._idle[0].alive)
    assert await documents.report(SHORT) == before


async def test_one_that_has_grown_is_replaced(make: Callable[..., TypstDocuments]) -> None:
    documents = make(memory=450)
    rows = [(number, f"Student {number}", "a", "b", "c") for number in range(2500)]
    await documents.report(SHORT)
    (first,) = typesetters(documents)
    await documents.report(SHORT)
    assert typesetters(documents) == [first]
    await documents.report(Report(title="Long", sections=[Table(list("abcde"), rows)], tagged=False))
    assert typesetters(documents) == []
    await documents.report(SHORT)
    assert typesetters(documents) != [first]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
async def test_one_that_wants_too_much_memory_dies_alone(make: Callable[..., TypstDocuments]) -> None:
    documents = make(memory=256)
    rows = [(number, f"Student {number}", "a", "b", "c") for number in range(10_000)]
    with pytest.raises(TypesetterFailed, match="memory"):
        await documents.report(Report(title="Long", sections=[Table(list("abcde"), rows)]))
    assert await documents.report(SHORT)


async def test_many_different_documents_take_no_more_memory_than_some(
    make: Callable[..., TypstDocuments],
) -> None:
    documents = make()

    async def sizes(numbers: range) -> int:
        for number in numbers:
            rows = [(f"Student {number}-{row}", row) for row in range(100)]
            await documents.report(Report(title=f"Report {number}", sections=[Table(["Name", "No."], rows)]))
        (process,) = typesetters(documents)
        return int(process.memory_info().rss)

    some = await sizes(range(60))
    assert await sizes(range(60, 160)) < some * 1.3


async def test_files_of_a_document_are_gone_after_it(make: Callable[..., TypstDocuments]) -> None:
    documents = make()
    await documents.preview(SHORT)
    home = Path(documents._home.name)
    assert [path for path in (home / "templates" / "files").rglob("*") if path.is_file()] == []
    await documents.aclose()
    assert not home.exists()


def test_one_whose_parent_was_killed_ends_by_itself(templates: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from errands.kits.documents import Report, TypstDocuments\n"
        "documents = TypstDocuments(templates=sys.argv[1], seconds=5)\n"
        "asyncio.run(documents.report(Report(title='Short', sections=[])))\n"
        "print('made', flush=True)\n"
        "asyncio.run(documents.report(Report(title=sys.argv[2], sections=[])) if sys.argv[2] != 'idle' "
        "else asyncio.sleep(3600))\n"
    )
    for title in ("idle", "Stuck"):
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(templates), title],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"made\n"
        (process,) = typesetters(parent=parent.pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
        until(lambda process=process: not process.is_running() or process.status() == "zombie")  # type: ignore[misc]


async def test_it_sees_no_secret_of_ours(
    make: Callable[..., TypstDocuments], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRANDS_SECRET_KEYS", "hidden")
    documents = make()
    await documents.report(SHORT)
    (process,) = typesetters(documents)
    assert "hidden" not in str(process.environ())
    assert process.environ()["HTTPS_PROXY"].endswith(":9")


def test_a_task_that_is_at_its_soft_limit_reports_what_it_has(tmp_path: Path) -> None:
    """System E: a report that is not ready in time ends with what there is."""
    app = Errands("school", settings=Settings(home=tmp_path, inline=True))
    app.use(documents_kit.kit())

    @app.task(name="generate_report", queue="reports")
    async def generate_report(*, documents: Documents) -> str:
        rows: list[tuple[str, int]] = []
        notice = ""
        try:
            async with asyncio.timeout(0.2):
                while True:
                    rows.append((f"Student {len(rows)}", len(rows)))
                    await asyncio.sleep(0.01)
        except TimeoutError:
            notice = f"Not complete: the time was up after {len(rows)} rows."
        report = Report(title="Marks", sections=[Table(["Student", "Mark"], rows)], notice=notice)
        return text_of(await documents.report(report))

    assert "Not complete: the time was up" in generate_report.delay().get()
    process_loop().run(app.resources.aclose())


async def test_as_many_at_once_as_there_are_processes(make: Callable[..., TypstDocuments]) -> None:
    documents = make(processes=2)
    reports = [replace(SHORT, sections=[Text(f"Text {number}")]) for number in range(6)]
    made = await asyncio.gather(*map(documents.report, reports))
    assert [text_of(pdf) for pdf in made] == [f"Short Text {number} 1 / 1" for number in range(6)]
    assert len(typesetters(documents)) == 2


def test_what_nobody_closes_ends_with_its_object(templates: Path) -> None:
    documents = TypstDocuments(templates=templates)
    documents.check()
    home = Path(documents._home.name)
    (process,) = typesetters(documents)
    del documents
    gc.collect()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert not home.exists()
