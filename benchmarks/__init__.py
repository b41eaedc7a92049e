"""This application beside others doing the same work: `python -m benchmarks` (`make bench`).

`contenders/` has one file for each system. `docs/benchmarks.md` says what is measured, and what came out.
"""
