"""The arithmetic of the benchmarks: what is said of a system must follow from what was measured."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from benchmarks import figures, picture, report
from benchmarks.contender import BenchmarkError, load, names
from benchmarks.figures import Summary, percentile, ratio, summary
from benchmarks.sender import WARM_UP, probe, send
from benchmarks.work import ARGUMENTS, SLEEPER, WORKLOADS, Tally
from rich.console import Console

KEY = "empty.drain_rate"


def rounds(*values: float) -> list[figures.Round]:
    return [{KEY: value} for value in values]


def result(**of: list[figures.Round]) -> report.Result:
    return report.Result(
        at="2026-01-02T03:04:05+00:00",
        tasks=100,
        processes=2,
        machine={
            "processor": "a <processor>", "cpus": 2, "system": "Linux", "python": "3.11.0",
            "server": "Valkey 9", "packages": {"celery": "5.7.0"}, "load_before": 0.5,
        },
        contenders={name: {"label": name.title(), "setup": "as it comes"} for name in of},
        rounds=of,
    )  # fmt: skip


def test_a_summary_is_the_median_and_the_range() -> None:
    assert summary(rounds(300, 100, 110), KEY) == Summary(median=110, least=100, most=300)
    assert summary(rounds(100, 200), KEY) == Summary(median=150, least=100, most=200)
    assert summary(rounds(1), "empty.record_lag") is None


def test_no_values_have_no_summary() -> None:
    with pytest.raises(ValueError, match="no values"):
        Summary.of([])


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine became four times slower in the last round; what one is to the other stayed the same.
    assert ratio(rounds(50, 60, 12), rounds(100, 120, 24), KEY) == 0.5
    # The median of the ratios 1, 2 and 10, not the ratio of the medians (which would be 20 / 4).
    assert ratio(rounds(4, 20, 40), rounds(4, 10, 4), KEY) == 2


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


def test_slow_work_is_sent_less_often() -> None:
    assert ARGUMENTS.count(5_000) == 5_000
    assert SLEEPER.count(5_000) == 500
    assert SLEEPER.count(50) == 20


def test_keys_of_measures_are_told_apart() -> None:
    keys = [measure.key for group in figures.measures(list(WORKLOADS)).values() for measure in group]
    assert len(keys) == len(set(keys))
    assert KEY in keys


def test_the_tally_counts_and_tells_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import work

    tally = Tally(tmp_path / "tally")
    monkeypatch.setenv("BENCHMARK_TALLY", str(tally.path))
    work._tally_file.cache_clear()
    try:
        assert tally.count() == 0
        sent = send(lambda *_: work.arguments(1, "ann@example.com", "Ann"), ARGUMENTS, 30)
        assert tally.count() == sent["sent"] == 30 + WARM_UP
        assert tally.times() == sorted(tally.times())
        assert tally.times(start=48) == tally.times()[48:]
        waits = probe(work.empty, tally, 3)["waits"]
        assert len(waits) == 3
        assert min(waits) >= 0
    finally:
        work._tally_file.cache_clear()


def test_the_systems_are_found_and_stock_celery_comes_first() -> None:
    assert names() == ["celery_default", "celery_tuned", "errands"]
    with pytest.raises(BenchmarkError, match=r"'nobody'.*celery_default"):
        load("nobody")


def test_a_result_keeps_its_rounds_and_says_what_they_amount_to() -> None:
    kept = json.loads(json.dumps(result(celery=rounds(100, 300), errands=rounds(50, 60)).to_json()))
    assert kept["rounds"]["celery"] == [{KEY: 100}, {KEY: 300}]
    assert kept["summary"]["errands"][KEY] == {"median": 55, "least": 50, "most": 60}


def test_the_table_shows_the_figures_and_their_ratio() -> None:
    console = Console(width=130, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    report.show(result(celery=rounds(100, 100, 100), errands=rounds(40, 50, 70)), console)
    line = next(line for line in console.export_text().splitlines() if "drained" in line)
    assert "100" in line
    assert "50 (40–70)" in line
    assert "0.50" in line


def test_the_picture_is_a_document_that_can_be_read() -> None:
    drawn = picture.draw(result(celery=rounds(100, 200), errands=rounds(50, 60)))
    root = ET.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(bar.get("width", 0)) for bar in root.iter(f"{space}rect")][1:]
    assert bars[0] == pytest.approx(bars[1] * 150 / 55, rel=0.01)
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "150 tasks/s" in texts
    assert "55 tasks/s" in texts
