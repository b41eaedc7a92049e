"""Errands' own tables. Their names all begin with `errands_`; an application's tables stand beside them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    desc,
    false,
)

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
    Column("subject", Text),  # the person whom it is about
    Column("result", Json),
    Column("error_type", PlainText),
    Column("error_message", PlainText),
    Column("error_traceback", PlainText),
    Column("progress", Json),
)
Index("errands_runs_subject", runs.c.subject)
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
    Column("sent_at", UtcDateTime),  # the row stays until the ledger knows that the run has ended
)
_unsent = outbox.c.sent_at.is_(None)
Index("errands_outbox_unsent", outbox.c.created_at, postgresql_where=_unsent, sqlite_where=_unsent)

# Arguments that were too large for a message.
payloads = Table(
    "errands_payloads",
    metadata,
    Column("key", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("content", LargeBinary),  # NULL: it is in the store that `app.offload_to` names
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("errands_payloads_created", payloads.c.created_at)
Index("errands_payloads_run", payloads.c.run_id)

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
Index("errands_dead_letters_run", dead_letters.c.run_id)

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

# What was done outside of the database, once over all attempts: see worker/effects.py.
effects = Table(
    "errands_effects",
    metadata,
    Column("scope", Text, primary_key=True),  # the run's id, or what several runs share
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),  # begun, done, unknown
    Column("run_id", Text, nullable=False),  # that claimed it last
    Column("task", Text),
    Column("attempt", Integer, nullable=False),
    Column("token", Text, nullable=False),  # of the attempt
    Column("at", UtcDateTime, nullable=False),
    Column("result", Json),
    Column("error", PlainText),
)
Index("errands_effects_run", effects.c.run_id)
Index("errands_effects_at", effects.c.at)

# How far the loops of a run came, for attempts that find nothing in Valkey.
checkpoints = Table(
    "errands_checkpoints",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("checkpoint", Json, nullable=False),  # {name of the loop: {"key", "count"}}
    Column("at", UtcDateTime, nullable=False),
)

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

# What people said of schedules, over what the code says or beside it. NULL: as in the code.
schedules = Table(
    "errands_schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("task", Text),
    Column("args", Json),  # secrets sealed
    Column("kwargs", Json),
    Column("options", Json),
    Column("cron", Text),
    Column("tz", Text),
    Column("every", Float),  # seconds
    Column("at", UtcDateTime),
    Column("catch_up", Text),
    Column("overlap", Text),
    Column("jitter", Float),
    Column("only_if", Json),
    Column("patience", Float),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("resumed_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("updated_by", PlainText),
)

# What became of each due time that a beat dealt with.
schedule_times = Table(
    "errands_schedule_times",
    metadata,
    Column("schedule", Text, primary_key=True),
    Column("due", UtcDateTime, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("outcome", Text, nullable=False),  # sent, skipped
    Column("at", UtcDateTime, nullable=False),
    Column("late", Float, nullable=False),  # seconds
    Column("run_id", Text),  # the schedule's newest run: this due time's own where it was sent
    Column("reason", PlainText),
)
Index("errands_schedule_times_run", schedule_times.c.run_id)

# One row for each recipient of a run that sends to many: see core/deliveries.py.
deliveries = Table(
    "errands_deliveries",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),  # what it is about, for those who opted out of that alone
    Column("address", PlainText),  # NULL: erased
    Column("person", Text),
    Column("data", Json),
    Column("state", Text, nullable=False),
    Column("reason", PlainText),
    Column("provider_id", PlainText),
    Column("tries", Integer, nullable=False),
    Column("token", Text),  # of the attempt that is at it, or was
    Column("at", UtcDateTime, nullable=False),
    Column("retry_at", UtcDateTime),
)
Index("errands_deliveries_state", deliveries.c.run_id, deliveries.c.state, deliveries.c.position)
Index("errands_deliveries_address", deliveries.c.address, deliveries.c.run_id)
Index("errands_deliveries_person", deliveries.c.person)

# Who wants nothing more on a channel, about one topic or ("") any.
opt_outs = Table(
    "errands_opt_outs",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("source", PlainText),
)
