"""Everything that touches SQL: the ledger, the outbox, dead letters, counters. SQLite and PostgreSQL."""
