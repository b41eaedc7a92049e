"""Celery's and kombu's integration tests on Errands' transport, result backend and pool, beside stock.

`make outside` runs the part that CI runs; ARGS says more:

- `--all`: the whole suites.
- `--stock`: the whole suites on stock Celery and kombu; what comes of them is kept in `stock.json`.
- `--only kombu` (or `celery-prefork`, `celery-pool`; of stock `kombu`, `celery`): one arrangement.
- `--lanes N`: how many jobs run side by side. They mostly wait: by default, three for each core and one more.

A test that fails is run again alone, up to twice, before it counts: some of them depend on timing. Ends with
1 if a test is worse than on stock and `allowed.toml` does not name it, or if `allowed.toml` names one that is
not worse; with 2 if the checks could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version

import lanes
from jobs import Job, Outcome, together
from places import ALLOWED, CACHE, STOCK
from server import label, server
from sources import OutsideError, Source, fetch, pinned
from suites import ADDED, JOBS, OURS, SLOW, STOCKS, Arrangement, chosen
from verdict import Allowed, differs, judge, read_allowed, unknown

import report


def main() -> int:
    options = _options()
    begun = time.monotonic()
    sources = pinned()
    fetch(sources)
    versions = _versions()
    print(report.heading(versions), flush=True)
    arrangements = [one for one in (STOCKS if options.stock else OURS) if options.only in (None, one.name)]
    good = True
    if options.stock:
        _keep_stock(sources, arrangements, versions, options.lanes)
    else:
        good = _compare(sources, arrangements, options.lanes, whole=options.all)
    print(f"{time.monotonic() - begun:.0f} s in all; logs of the jobs are in {CACHE / 'jobs'}")
    return 0 if good else 1


def _keep_stock(
    sources: dict[str, Source], arrangements: list[Arrangement], versions: dict[str, str], number: int
) -> None:
    jobs = [job for one in arrangements for job in _jobs(one, sources)]
    lanes.run(jobs, number, lambda job, test, outcome: outcome.what in ("failed", "no outcome"))
    kept = json.loads(STOCK.read_text())["outcomes"] if STOCK.exists() else {}
    for one in arrangements:
        outcomes = {test: outcome.what for test, outcome in together(_of(one, jobs)).items()}
        counts = {what: list(outcomes.values()).count(what) for what in sorted(set(outcomes.values()))}
        print(f"stock {one.name}: {len(outcomes)} tests: {counts}")
        kept[one.package] = dict(sorted(outcomes.items()))
    STOCK.write_text(json.dumps({"versions": versions, "outcomes": kept}, indent=1) + "\n")


def _compare(
    sources: dict[str, Source], arrangements: list[Arrangement], number: int, *, whole: bool
) -> bool:
    stock = _kept_stock(sources)
    allowed = _allowed()
    left_out = () if whole else SLOW

    def counts(job: Job, test: str, outcome: Outcome) -> bool:
        excused = any(job.arrangement.name in one.arrangements and test in one.tests for one in allowed)
        return not excused and differs(outcome.what, stock[job.source.name].get(test))

    jobs = [job for one in arrangements for job in _jobs(one, sources, left_out)]
    lanes.run(jobs, number, counts)
    rows, texts, notes = [], [], []
    for one in arrangements:
        outcomes = together(_of(one, jobs))
        chosen_here = [test for test in stock[one.package] if not chosen(test, left_out)]
        verdict = judge(
            {test: outcome.what for test, outcome in outcomes.items()},
            {test: stock[one.package][test] for test in chosen_here},
            allowed,
            one.name,
        )
        rows.append((one.name, verdict, _of(one, jobs)))
        texts += report.problems(one.name, verdict, outcomes)
        texts += [
            f"{one.name}: {test}: there is no such test; take it out of allowed.toml."
            for test in unknown(allowed, one.name, [*stock[one.package], *outcomes])
        ]
        notes += report.differences(one.name, verdict, allowed)
    print("\n" + "\n\n".join([*texts, "\n".join(notes), report.table(rows)]))
    return not texts


def _jobs(arrangement: Arrangement, sources: dict[str, Source], left_out: tuple[str, ...] = ()) -> list[Job]:
    package = arrangement.package
    parts = JOBS[package] + (() if arrangement.is_stock else ADDED.get(package, ()))
    return [
        Job(arrangement, sources[package], part, number, left_out) for number, part in enumerate(parts, 1)
    ]


def _of(arrangement: Arrangement, jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.arrangement == arrangement]


def _kept_stock(sources: dict[str, Source]) -> dict[str, dict[str, str]]:
    kept = json.loads(STOCK.read_text())
    for name, source in sources.items():
        if kept["versions"].get(name) != source.version:
            raise OutsideError(
                f"{STOCK.name} was made with {name} {kept['versions'].get(name)}, not with {source.version}; "
                "make it anew: make outside ARGS=--stock"
            )
    outcomes: dict[str, dict[str, str]] = kept["outcomes"]
    return outcomes


def _allowed() -> list[Allowed]:
    try:
        return read_allowed(ALLOWED.read_text(), [one.name for one in OURS])
    except ValueError as exc:
        raise OutsideError(str(exc)) from exc


def _versions() -> dict[str, str]:
    with server(CACHE / "valkey") as port:
        running = label(port)
    names = ("celery", "kombu", "redis", "pytest")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(), "server": running
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make outside", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--all", action="store_true", help="the whole suites, not only the part for CI")
    what.add_argument("--stock", action="store_true", help="run on stock, and keep what comes of it")
    parser.add_argument(
        "--only", choices=sorted({one.name for one in (*STOCKS, *OURS)}), help="one arrangement"
    )
    parser.add_argument(
        "--lanes", type=int, default=3 * (os.cpu_count() or 1) + 1, help="how many jobs side by side"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OutsideError as exc:
        print(f"outside checks: {exc}", file=sys.stderr)
        sys.exit(2)
