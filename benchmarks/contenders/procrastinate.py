"""procrastinate, for its bulk sending into PostgreSQL alone: Errands' broker is another kind of server."""

from __future__ import annotations

from benchmarks.contender import ACCEPT, MANY, Contender, Setting

CONTENDER = Contender(
    label="procrastinate",
    order=70,
    program="procrastinate",
    environment="bench",
    packages=("procrastinate", "psycopg"),
    best=Setting("default", "PostgreSQL, psycopg's pool of connections", []),
    share=0.5,
    measures=(ACCEPT, MANY),
)
