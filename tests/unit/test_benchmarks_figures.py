"""The arithmetic of the benchmarks: what is said of a system must follow from what was measured."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import environments, figures, page, picture, report, work
from benchmarks.contender import BenchmarkError, load, names
from benchmarks.figures import GROUPS, MEASURES, Better, Summary, percentile, ratio, summary
from benchmarks.program import Blocking, Looping
from benchmarks.sender import WARM_UP, run
from benchmarks.targets import Verdict, judge
from benchmarks.work import EMPTY, Tally
from rich.console import Console

KEY = "drain.rate"


def rounds(*values: float, key: str = KEY) -> list[figures.Round]:
    return [{key: value} for value in values]


def result(**of: list[figures.Round]) -> report.Result:
    return report.Result(
        at="2026-01-02T03:04:05+00:00",
        sizes={"tasks": 100},
        machine={
            "processor": "a <processor>", "cpus": 2, "system": "Linux", "python": "3.11.0",
            "server": "Valkey 9", "load_before": 0.5,
        },
        contenders={
            name: {
                "label": name.title(), "settings": {"best": "as it comes"}, "versions": {name: "1.0"}
            }
            for name in of
        },
        rounds=of,
    )  # fmt: skip


def verdict(found: report.Result, words: str) -> Verdict:
    (one,) = [each for each in judge(found) if words in each.label]
    return one


def test_a_summary_is_the_median_and_the_range() -> None:
    assert summary(rounds(300, 100, 110), KEY) == Summary(median=110, least=100, most=300)
    assert summary(rounds(100, 200), KEY) == Summary(median=150, least=100, most=200)
    assert summary(rounds(1), "drain.record_lag") is None


def test_no_values_have_no_summary() -> None:
    with pytest.raises(ValueError, match="no values"):
        Summary.of([])


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine became four times slower in the last round; what one is to the other stayed the same.
    assert ratio(rounds(50, 60, 12), rounds(100, 120, 24), KEY) == 0.5
    # The median of the ratios 1, 2 and 10, not the ratio of the medians (which would be 20 / 4).
    assert ratio(rounds(4, 20, 40), rounds(4, 10, 4), KEY) == 2


def test_a_ratio_can_be_of_two_figures() -> None:
    assert ratio(rounds(30), rounds(60, key="default.rate"), KEY, "default.rate") == 0.5


def test_a_ratio_to_nothing_is_none() -> None:
    assert ratio(rounds(1, 2), rounds(0, 0), KEY) is None
    assert ratio(rounds(1), [{}], KEY) is None


def test_rounds_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio(rounds(1, 2), rounds(1), KEY)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 50, 5),
        ([3.0, 1.0, 2.0], 50, 2),
        ([4.0, 1.0, 3.0, 2.0], 50, 2),
        ([float(n) for n in range(1, 101)], 99, 99),
        ([float(n) for n in range(1, 101)], 100, 100),
        ([float(n) for n in range(1, 11)], 99, 10),
    ],
)
def test_percentiles(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_percentiles_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="needs values"):
        percentile([1.0], 0)


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (100, "100"), (99.96, "100"), (8.5, "8.5"), (0.0271, "0.0271")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report.number(value) == text


def test_keys_of_measures_are_told_apart() -> None:
    assert len(MEASURES) == sum(len(group) for group in GROUPS.values())
    assert KEY in MEASURES


# -- the sender and the tally


@pytest.fixture
def tally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tally]:
    """The tally into which tasks of this process write."""
    found = Tally(tmp_path / "tally")
    monkeypatch.setenv("BENCHMARK_TALLY", str(found.path))
    work._tally_file.cache_clear()
    yield found
    work._tally_file.cache_clear()


def plain_many(task: str, count: int) -> None:
    for _ in range(count):
        work.empty()


async def looping_many(task: str, count: int) -> None:
    await asyncio.gather(*(work.async_empty() for _ in range(count)))


SENDERS = {
    "plain": Blocking(one=lambda task: work.empty(), many=plain_many),
    "on a loop": Looping(one=lambda task: work.async_empty(), many=looping_many),
}


@pytest.mark.parametrize("sender", SENDERS.values(), ids=SENDERS)
def test_the_sender_tells_how_many_it_sent(tally: Tally, sender: Blocking | Looping) -> None:
    one_by_one = run(sender, "accept", EMPTY, 0.01)
    assert isinstance(one_by_one["calls"], list)
    assert one_by_one["sent"] == tally.count() == len(one_by_one["calls"]) + WARM_UP
    before = tally.count()
    assert run(sender, "many", EMPTY, 30)["sent"] == tally.count() - before == 31
    before = tally.count()
    probed = run(sender, "probe", EMPTY, 3)
    assert probed["sent"] == tally.count() - before == WARM_UP + 3
    assert isinstance(probed["waits"], list)
    assert len(probed["waits"]) == 3
    assert min(probed["waits"]) >= 0
    assert tally.times() == sorted(tally.times())
    assert tally.times(start=48) == tally.times()[48:]


# -- contenders


def test_the_systems_are_found_and_stock_celery_comes_first() -> None:
    found = names()
    assert found[:2] == ["celery", "celery_careful"]
    assert {"huey", "taskiq_list", "taskiq_streams", "dramatiq", "streaq", "arq", "saq"} < set(found)
    assert [name for name in found if load(name).ours] == ["errands"]
    with pytest.raises(BenchmarkError, match=r"'nobody'.*celery"):
        load("nobody")


@pytest.mark.parametrize("name", names())
def test_each_system_has_its_program_and_its_pinned_environment(name: str) -> None:
    contender = load(name)
    assert (Path(work.__file__).parent / "programs" / f"{contender.program}.py").exists()
    if contender.environment:
        pinned = (environments.ROOT / "requirements" / f"{contender.environment}.txt").read_text()
        for package in contender.packages:
            assert f"\n{package}==" in f"\n{pinned}", package
    for measure in contender.measures:
        # What drains needs a worker, and a place to look whether it is done and whether results are there.
        if measure in {"drain", "bare", "sleepers", "commands"}:
            assert contender.setting(measure).workers
            assert contender.queues
            assert contender.results


# -- what is said of a result


def test_a_result_keeps_its_rounds_and_says_what_they_amount_to() -> None:
    kept = json.loads(json.dumps(result(celery=rounds(100, 300), errands=rounds(50, 60)).to_json()))
    assert kept["rounds"]["celery"] == [{KEY: 100}, {KEY: 300}]
    assert kept["summary"]["errands"][KEY] == {"median": 55, "least": 50, "most": 60}
    assert kept["targets"][0]["reached"] is False


def test_the_best_peer_is_never_a_row_of_our_own() -> None:
    found = result(celery=rounds(1), huey=rounds(3), errands=rounds(9), errands_ledger=rounds(8))
    assert found.best(KEY, Better.HIGHER) == "huey"
    assert found.best(KEY, Better.LOWER) == "celery"
    assert found.best(KEY, Better.HIGHER, ["celery", "nobody"]) == "celery"
    assert found.best("accept.rate", Better.HIGHER) == ""


def test_targets_are_judged_beside_the_best_peer() -> None:
    found = result(celery=rounds(10), huey=rounds(100), errands=rounds(120))
    judged = verdict(found, "drain with results")
    assert (judged.reached, judged.dream, judged.found) == (True, False, "1.20x Huey")
    assert verdict(result(huey=rounds(100), errands=rounds(99)), "drain with results").reached is False
    assert verdict(found, "without results").reached is None
    assert judge(result(huey=rounds(100))) == []


def test_targets_that_are_no_ratio() -> None:
    found = result(
        celery=[{"accept.rate": 100.0, "pickup.p99": 5.0, "default.memory": 90.0, "drain.memory": 90.0}],
        huey=[{"accept.rate": 900.0, "pickup.p99": 2.0}],
        errands=[
            {
                "accept.rate": 450.0, "pickup.p50": 1.4, "ping.p50": 0.2, "pickup.p99": 2.5,
                "default.memory": 60.0, "drain.memory": 91.0, "commands.run": 0.5, "commands.send": 1.0,
                KEY: 95.0,
            }
        ],
        errands_ledger=rounds(80),
        errands_unrecorded=rounds(100),
    )  # fmt: skip
    reached = {
        "one by one": True, "pick-up, median": False, "pick-up, 99 %": False,
        "memory of one worker": True, "memory of all processes": False,
        "commands sent": True, "events being written": True, "beat that moves": False,
    }  # fmt: skip
    assert {words: verdict(found, words).reached for words in reached} == reached
    assert verdict(found, "one by one").dream is False
    assert verdict(found, "beat that moves").found == "20 % slower"


def test_the_table_shows_the_figures_their_ratio_and_who_is_missing() -> None:
    console = Console(width=160, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    found = result(celery=rounds(100, 100, 100), errands=rounds(40, 50, 70))
    found.left_out["huey"] = "cannot be installed"
    report.show(found, console)
    lines = console.export_text().splitlines()
    assert any("Celery" in line and "100" in line for line in lines)
    assert any("÷ best peer" in line and "0.50" in line for line in lines)
    assert any("drain with results" in line and "missed" in line for line in lines)
    assert "LEFT OUT: huey: cannot be installed" in lines


def test_the_page_tells_figures_targets_and_settings() -> None:
    found = result(celery=rounds(100, 200), errands=rounds(50, 60))
    found.left_out["huey"] = "cannot be installed"
    lines = page.write(found, "picture.svg").splitlines()
    assert "| Errands | 55 (50–60) |" in lines
    assert "| drain with results: 1.0x the best peer (dream 1.5x) | 0.40x Celery | missed |" in lines
    assert "| Celery | as it comes |  |  | celery 1.0 |" in lines
    assert "Left out: huey: cannot be installed" in lines


def test_the_picture_is_a_document_that_can_be_read() -> None:
    drawn = picture.draw(result(celery=rounds(100, 200), errands=rounds(50, 60)))
    root = ET.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(bar.get("width", 0)) for bar in root.iter(f"{space}rect")][1:]
    # The best stands on top; what was not measured has no group.
    assert bars[0] == pytest.approx(bars[1] * 150 / 55, rel=0.01)
    assert len(bars) == 2
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "150" in texts
    assert "55" in texts
