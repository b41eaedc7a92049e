"""Taskiq on a Redis stream, its broker that acknowledges."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_WORKER = ("taskiq", "worker", "benchmarks.programs.taskiq:broker")
_TUNED = ("--workers", "2", "--no-parse", "--log-level", "WARNING")

CONTENDER = Contender(
    label="Taskiq, streams",
    order=21,
    program="taskiq",
    environment="bench",
    packages=("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop", "orjson"),
    best=Setting(
        "streams-tuned",
        "2 worker processes with 30 tasks at a time, prefetch 100, uvloop, orjson, arguments not parsed, "
        "quiet",
        [[*_WORKER, *_TUNED, "--max-async-tasks", "30", "--max-prefetch", "100"]],
    ),
    waiting=Setting(
        "streams-tuned",
        "the same with 200 tasks at a time",
        [[*_WORKER, *_TUNED, "--max-async-tasks", "200", "--max-prefetch", "100"]],
    ),
    default=Setting("streams", "2 worker processes, uvloop", [_WORKER]),
    queues=("taskiq",),
    results="result:*",
    share=0.5,
)
