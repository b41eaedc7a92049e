"""Errands' own tables. Their names all begin with `errands_`; an application's tables stand beside them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, desc

from errands.store.types import Json, PlainText, UtcDateTime

metadata = MetaData()

runs = Table(
    "errands_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("task", Text),
    Column("queue", Text),
    Column("state", Text, nullable=False),
    Column("owner", Text),
    Column("parent_id", Text),
    Column("root_id", Text),
    Column("args", Json),  # secrets as ***
    Column("kwargs", Json),  # secrets as ***
    Column("message", Json),  # {"args", "kwargs", "options"} with secrets sealed: what a retry by hand sends
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer),
    Column("created_at", UtcDateTime, nullable=False),  # the earliest that was heard of the run
    Column("queued_at", UtcDateTime),
    Column("eta", UtcDateTime),
    Column("started_at", UtcDateTime),  # of the latest attempt
    Column("finished_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("reopened_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("duration", Float),  # seconds, of the attempt that ended it
    Column("worker", Text),
    Column("result", Json),
    Column("error_type", PlainText),
    Column("error_message", PlainText),
    Column("error_traceback", PlainText),
    Column("progress", Json),
)
Index("errands_runs_created", desc(runs.c.created_at), desc(runs.c.id))
Index("errands_runs_state_created", runs.c.state, runs.c.created_at)
Index("errands_runs_task_created", runs.c.task, runs.c.created_at)
Index("errands_runs_owner_created", runs.c.owner, runs.c.created_at)
Index("errands_runs_finished", runs.c.finished_at)
Index("errands_runs_parent", runs.c.parent_id)
Index("errands_runs_root", runs.c.root_id)

attempts = Table(
    "errands_attempts",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    # retrying, snoozed, succeeded, failed, discarded, revoked, expired, lost (its worker died); NULL: at it
    Column("outcome", Text),
    Column("worker", Text),
    Column("duration", Float),
    Column("error_type", PlainText),
    Column("error_message", PlainText),
    Column("error_traceback", PlainText),
    Column("retry_at", UtcDateTime),
)

outbox = Table(
    "errands_outbox",
    metadata,
    Column("id", Text, primary_key=True),  # of the run
    Column("task", Text, nullable=False),
    Column("args", Json, nullable=False),  # secrets sealed
    Column("kwargs", Json, nullable=False),
    Column("options", Json, nullable=False),
    Column("owner", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("eta", UtcDateTime),
    Column("tries", Integer, nullable=False, default=0),
    Column("retry_at", UtcDateTime),
    Column("last_error", PlainText),
)
Index("errands_outbox_created", outbox.c.created_at)

dead_letters = Table(
    "errands_dead_letters",
    metadata,
    Column("id", Text, primary_key=True),  # of its entry in the event stream
    Column("run_id", Text),
    Column("task", Text),
    Column("queue", Text),
    Column("reason", PlainText, nullable=False),
    Column("message", Json),
    Column("at", UtcDateTime, nullable=False),
    Column("replayed_at", UtcDateTime),
)
Index("errands_dead_letters_at", dead_letters.c.at)

# Totals since the ledger began; they only grow, also when the runs behind them are pruned.
counters = Table(
    "errands_counters",
    metadata,
    Column("task", Text, primary_key=True),
    Column("state", Text, primary_key=True),  # a state, "snoozed" or "dead_letter"
    Column("count", BigInteger, nullable=False),
)

# One row a task and bucket: how many attempts took up to `le` seconds, but longer than the bucket before.
durations = Table(
    "errands_durations",
    metadata,
    Column("task", Text, primary_key=True),
    Column("le", Float, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("sum", Float, nullable=False),
)

audit = Table(
    "errands_audit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", PlainText, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", PlainText),  # a run's id, a queue…
    Column("reason", PlainText),
    Column("details", Json),
)
Index("errands_audit_at", audit.c.at)
Index("errands_audit_target", audit.c.target)

# How far the recorder has read each stream. Entries up to `doubtful_until` may have been read before.
position = Table(
    "errands_position",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("entry_id", Text, nullable=False),
    Column("doubtful_until", Text, nullable=False),
    Column("entries", BigInteger),  # ever written to the stream up to there
    Column("missing", BigInteger, nullable=False, server_default="0"),  # dropped before they were read
    Column("missing_at", UtcDateTime),
)
