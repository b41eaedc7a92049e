"""Priorities by word: how they are said, what is refused, where they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from errands import Errands, InvalidArguments, Settings
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.ops.run_view import RunView

LEVELS = ("high", "normal", "low")


@pytest.fixture
def app(valkey_url: str, key_prefix: str) -> Iterator[Errands]:
    settings = Settings(
        broker_url=valkey_url, result_url=valkey_url, valkey_url=valkey_url, key_prefix=key_prefix
    )
    app = Errands("levels", settings=settings)

    @app.task(name="plain", queue="mail")
    def plain() -> None: ...

    @app.task(name="urgent", queue="mail", priority="high")
    def urgent() -> None: ...

    @app.task(name="by_number", queue="mail", priority=2)
    def by_number() -> None: ...

    yield app
    app.close()


def level_of(app: Errands, run_id: str) -> str:
    """The stream in which the run's message lies."""
    keys: Keys = app.keys
    for level in LEVELS:
        rows: Any = Clients(app.settings.valkey_url).sync.xrange(keys.stream("mail", level))
        if any(run_id.encode() in fields[b"m"] for _, fields in rows):
            return level
    raise AssertionError(f"{run_id} is in no stream")


@pytest.mark.parametrize(("given", "level"), [
    ("high", "high"), ("normal", "normal"), ("low", "low"), (9, "high"), (1, "low"), (0, "normal"),
    (None, "normal"),
])  # fmt: skip
def test_a_call_says_it_by_word_or_number(app: Errands, given: Any, level: str) -> None:
    for run in (app.tasks["plain"].apply_async(priority=given), app.send_task("plain", priority=given)):
        assert level_of(app, run.id) == level
        live = app.live.get(run.id)
        assert live is not None
        assert RunView.of_live(live).as_dict(in_full=False)["priority"] == level


def test_a_task_says_it_and_a_call_goes_before(app: Errands) -> None:
    assert level_of(app, app.tasks["urgent"].delay().id) == "high"
    assert level_of(app, app.tasks["by_number"].delay().id) == "low"
    assert level_of(app, app.tasks["urgent"].apply_async(priority="low").id) == "low"
    assert level_of(app, app.tasks["urgent"].s().set(priority="normal").apply_async().id) == "normal"


async def test_all_ways_of_sending_take_words(app: Errands) -> None:
    task = app.tasks["plain"]
    assert level_of(app, (await task.aapply_async(priority="high")).id) == "high"
    assert level_of(app, task.delay_many([()], priority="low")[0]) == "low"
    assert level_of(app, (await task.adelay_many([()], priority="low"))[0]) == "low"


@pytest.mark.parametrize("send", [
    lambda app: app.tasks["plain"].apply_async(priority="urgent"),
    lambda app: app.send_task("plain", priority="urgent"),
    lambda app: app.tasks["plain"].delay_many([()], priority="urgent"),
    lambda app: app.tasks["plain"].apply_on_commit(None, priority="urgent"),
])  # fmt: skip
def test_a_word_that_is_none_is_refused(app: Errands, send: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"plain: .*priority='urgent': use 'high', 'normal', 'low' or"):
        send(app)
