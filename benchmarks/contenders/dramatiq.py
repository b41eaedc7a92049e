"""Dramatiq on Redis: threads in processes; acknowledges."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_MODULE = "benchmarks.programs.dramatiq"

CONTENDER = Contender(
    label="Dramatiq",
    order=30,
    program="dramatiq",
    environment="bench",
    packages=("dramatiq", "redis", "hiredis"),
    best=Setting(
        "tuned",
        "2 processes with 16 threads each",
        [["dramatiq", _MODULE, "--processes", "2", "--threads", "16"]],
    ),
    waiting=Setting(
        "waiting",
        "2 processes with 32 threads each",
        [["dramatiq", _MODULE, "--processes", "2", "--threads", "32"]],
    ),
    default=Setting("default", "a process per core with 8 threads each", [["dramatiq", _MODULE]]),
    queues=("dramatiq:default", "dramatiq:default.msgs"),
    results="dramatiq-results:*",
    share=0.5,
)
