"""Lines of the standard library's loggers: rendered by ourselves, as structlog would."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from errands import Keyring, Run, Settings, logs


@pytest.fixture
def formatter() -> Iterator[logging.Formatter]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    logs.configure(Settings())
    made = root.handlers[0].formatter
    assert made is not None
    yield made
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def both(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    ways = (formatter.format(record), structlog.stdlib.ProcessorFormatter.format(formatter, record))
    return [line.partition(" ")[2] for line in ways]


def record(text: str, *args: object, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("celery.app.trace", logging.INFO, "f.py", 1, text, args, None)
    vars(made).update(facts)
    return made


@pytest.mark.parametrize(
    "made",
    [
        record("a worker is %s", "ready"),
        record("Task %(name)s[%(id)s] succeeded", {"id": "1", "name": "t"}, data={"id": "1", "name": "t"}),
        record("sealed: %s", Keyring.parse(Keyring.new_key()).seal("secret", context="t")),
        record("two\nlines"),
    ],
    ids=["plain", "of a task", "with a secret", "two lines"],
)
def test_a_line_is_the_same(formatter: logging.Formatter, made: logging.LogRecord) -> None:
    ours, structlogs = both(formatter, made)
    assert ours == structlogs
    assert "sealed:v1" not in ours


def test_a_line_within_a_run_is_the_same(formatter: logging.Formatter) -> None:
    with Run("7", "report").current():
        ours, structlogs = both(formatter, record("half done"))
    assert ours == structlogs
    assert "report[7] half done" in ours
