"""Running jobs side by side, and failing tests again, alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from jobs import ENDS, NO_OUTCOME, Job, Outcome

RERUNS = 2
# So many are no chance, and each alone would only take long.
RERUN_AT_MOST = 20


def run(jobs: Iterable[Job], lanes: int, counts: Callable[[Job, str, Outcome], bool]) -> None:
    """Fill in the outcomes of all jobs. `counts` says which outcomes are worth another try."""
    with ThreadPoolExecutor(lanes) as pool:
        for done in [pool.submit(_run, job, counts) for job in jobs]:
            done.result()


def _run(job: Job, counts: Callable[[Job, str, Outcome], bool]) -> None:
    job.prepare()
    print(f"  {job.name}: begun", flush=True)
    job.outcomes = job.run()
    # Left out when the process of all of them died: they have had no try yet.
    left = tuple(test for test, outcome in job.outcomes.items() if outcome == NO_OUTCOME)
    if left:
        how = f"its process died ({job.ended_with})"
        print(f"  {job.name}: {how}; the {len(left)} tests left are run in another one", flush=True)
        job.outcomes |= _asked(job.run(left), left)
    for attempt in range(1, RERUNS + 1):
        failing = [
            test for test, outcome in job.outcomes.items() if counts(job, test, outcome) and test != ENDS
        ]
        if len(failing) > RERUN_AT_MOST:
            print(f"  {job.name}: {len(failing)} tests fail; too many to run each again alone", flush=True)
            break
        for test in failing:
            why = [line for line in job.outcomes[test].error.splitlines() if line.startswith("E ")]
            print(f"  {job.name}: {job.outcomes[test].what}: {test}: {' '.join(why[:2])[:300]}", flush=True)
            outcome = _asked(job.run((test,)), (test,)).get(test, job.outcomes[test])
            print(f"  {job.name}: again, alone ({attempt} of {RERUNS}): {outcome.what}: {test}", flush=True)
            if not counts(job, test, outcome):
                job.flaky.append(test)
            job.outcomes[test] = outcome
    print(f"  {job.name}: {len(job.outcomes)} tests in {job.seconds:.0f} s", flush=True)


def _asked(outcomes: dict[str, Outcome], tests: tuple[str, ...]) -> dict[str, Outcome]:
    return {test: outcome for test, outcome in outcomes.items() if test in tests}
