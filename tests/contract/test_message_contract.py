"""What we write is what Celery's own producer writes: field by field, as a consumer of kombu's reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from math import isnan
from pathlib import Path
from typing import Any
from uuid import UUID

import celery
import pytest
import redis
from celery import chain, chord, group, signals
from kombu.transport.virtual import Channel, Message
from kombu.utils.json import dumps, loads

from errands import Errands, Keyring, Secret, Settings
from errands.core.task import LEVELS
from errands.defaults import celery_configuration

# Of each message and each sender its own. `errands` is what we add.
_OWN_HEADERS = {"origin", "errands"}
_OWN_PROPERTIES = {"delivery_tag", "reply_to", "body_encoding"}
_IDS = {"task_id", "root_id", "parent_id", "group_id", "reply_to"}
_ETA = datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


def _work(*args: Any, **kwargs: Any) -> None: ...


def _limited(x: int) -> None: ...


class Pair:
    """The same tasks in our app and in a plain Celery app, and what each of them writes."""

    def __init__(self, folder: Path, url: str, prefix: str, valkey: redis.Redis) -> None:
        settings = Settings(
            home=folder,
            broker_url=url,
            key_prefix=prefix,
            secret_keys=Keyring.new_key(),
            payload_max=1_000_000,
        )
        self.prefix, self.valkey = prefix, valkey
        self.ours = Errands("contract", settings=settings, queues=["celery", "side"], set_as_current=False)
        self.stock = celery.Celery(
            "contract", broker="memory://", backend="cache+memory://", set_as_current=False
        )
        plain = {
            name: value
            for name, value in celery_configuration(settings).items()
            if name.startswith("task_") or name in ("enable_utc", "timezone")
        }
        self.stock.conf.update(plain, task_create_missing_queues=True)
        self.channel: Channel = self.stock.connection_for_write().default_channel

        @self.ours.task(name="work")
        def work(*args: Any, **kwargs: Any) -> None: ...

        @self.ours.task(name="limited", time_limit=30, soft_time_limit=20, ignore_result=True)
        def limited(x: int) -> None: ...

        @self.ours.task(name="measured")
        def measured(values: list[float], more: float | None) -> None: ...

        @self.ours.task(name="hidden", queue="side")
        def hidden(name: str, *, token: Secret[str]) -> None: ...

        self.stock.task(name="work", shared=False)(_work)
        self.stock.task(name="measured", shared=False)(_work)
        self.stock.task(name="limited", time_limit=30, soft_time_limit=20, ignore_result=True, shared=False)(
            _limited
        )
        self.ours.finalize()
        self.stock.finalize()

    def written(self, queue: str = "celery") -> list[dict[str, Any]]:
        """What our app wrote since the last time, as kombu loads it."""
        found = []
        delayed = f"{self.prefix}q:{queue}:delayed:messages"
        raws = [raw.partition(b"\0")[2] for raw in self.valkey.hvals(delayed)]
        for level in LEVELS:
            stream = f"{self.prefix}q:{queue}:{level}"
            raws += [entry[b"m"] for _, entry in self.valkey.xrange(stream)]
            self.valkey.delete(stream)
        self.valkey.delete(delayed)
        for raw in raws:
            assert isinstance(raw, bytes)
            found.append(loads(raw))
        return found

    def stocks(self, queue: str = "celery") -> list[dict[str, Any]]:
        """What plain Celery wrote since the last time."""
        found = []
        while self.channel._size(queue):
            found.append(loads(dumps(self.channel._get(queue))))
        return found

    def read(self, payload: dict[str, Any]) -> Message:
        """The message as a consumer of kombu's sees it."""
        return Message(payload, channel=self.channel, accept={"application/json"})


@pytest.fixture
def pair(tmp_path: Path, valkey_url: str, key_prefix: str, valkey: redis.Redis) -> Iterator[Pair]:
    pair = Pair(tmp_path, valkey_url, key_prefix, valkey)
    pair.stocks()
    yield pair
    pair.stocks()


def same(pair: Pair, one: dict[str, Any], other: dict[str, Any], *, but: Collection[str] = ()) -> None:
    """Compare our message with stock Celery's, as both are read."""
    ours, stock = pair.read(one), pair.read(other)
    assert ours.content_type == stock.content_type
    assert ours.content_encoding == stock.content_encoding
    headers = [
        {key: value for key, value in m.headers.items() if key not in {*_OWN_HEADERS, *but}}
        for m in (ours, stock)
    ]
    assert headers[0] == headers[1]
    properties = [
        {key: value for key, value in m.properties.items() if key not in {*_OWN_PROPERTIES, *but}}
        for m in (ours, stock)
    ]
    assert properties[0] == properties[1]
    assert ours.delivery_info == stock.delivery_info
    assert ours.decode() == stock.decode()
    assert ours.delivery_tag
    assert UUID(ours.properties["reply_to"])


_DEEP = {"a": [1, 2.5, None, True, {"b": ["c", {"d": "e"}]}], "leer": {}, "list": []}
# What logs and monitors show of these is Python's repr; Celery's own leaves out what lies deep, and does not
# escape what does not print.
_SHOWN_OTHERWISE = {"nested", "unicode", "half a surrogate pair"}
CALLS: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": ([], {}, {}),
    "by position": ([1, "two", 3.5, None, True], {}, {}),
    "by name": ([], {"x": 1, "y": [1, 2]}, {}),
    "nested": ([[1, [2, [3]]]], {"options": _DEEP}, {}),
    "unicode": (["grüße, 世界 \U0001f600 \u2028 \x00 \x7f"], {"naïve": "\\ \" ' / \t\n"}, {}),
    "half a surrogate pair": (["\ud83d"], {}, {}),
    "large numbers": ([2**70, -(2**63), 1e300, 1e16, 0.1], {}, {}),
    "large": (["x" * 5000], {"rows": list(range(2000))}, {}),
    "countdown of zero": ([1], {}, {"countdown": 0}),
    "eta": ([1], {}, {"eta": _ETA}),
    "eta as text": ([1], {}, {"eta": _ETA.isoformat()}),
    "naive eta": ([1], {}, {"eta": _ETA.replace(tzinfo=None)}),
    "retries": ([1], {}, {"retries": 3}),
    "limits": ([1], {}, {"time_limit": 60, "soft_time_limit": 50}),
    "no limits": ([1], {}, {"time_limit": None, "soft_time_limit": None}),
    "shadow": ([1], {}, {"shadow": "other.name"}),
    "ignored result": ([1], {}, {"ignore_result": True}),
    "priority": ([1], {}, {"priority": 9}),
    "priority of zero": ([1], {}, {"priority": 0}),
    "member of a group": ([1], {}, {"group_id": "g", "group_index": 7, "root_id": "r", "parent_id": "p"}),
    "replaced": ([1], {}, {"replaced_task_nesting": 2}),
    "headers of the user": ([1], {}, {"headers": {"tenant": "7", "trace": {"id": 1}}}),
    "dates in headers": ([1], {}, {"headers": {"since": _ETA, "cost": Decimal("1.10")}}),
    "stamps": ([1], {}, {"stamped_headers": ["tenant"], "tenant": "seven"}),
    "reply to": ([1], {}, {"reply_to": "f6a6ee10-6f36-4b96-a4a1-4d0e4ad9a0c5"}),
    "a queue by name": ([1], {}, {"queue": "celery"}),
}


@pytest.mark.parametrize("named", CALLS)
def test_a_call_is_written_as_celery_writes_it(pair: Pair, named: str) -> None:
    args, kwargs, options = CALLS[named]
    for app in (pair.ours, pair.stock):
        app.tasks["work"].apply_async(tuple(args), kwargs, task_id="id-1", **options)
    (one,), (other,) = pair.written(), pair.stocks()
    same(pair, one, other, but={"argsrepr", "kwargsrepr"} if named in _SHOWN_OTHERWISE else set())


def test_what_a_task_declares_is_written_as_celery_writes_it(pair: Pair) -> None:
    for app in (pair.ours, pair.stock):
        app.tasks["limited"].apply_async((1,), task_id="id-1")
        app.tasks["limited"].apply_async((1,), task_id="id-2", time_limit=None, ignore_result=False)
        app.send_task("limited", (1,), task_id="id-3")
    for one, other in zip(pair.written(), pair.stocks(), strict=True):
        # Sent by its name, Celery says nothing of the result, and the worker's own declaration holds.
        same(pair, one, other, but={"ignore_result"} if one["headers"]["id"] == "id-3" else set())


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 30}, {"expires": 60}, {"countdown": 2.5, "expires": 90.5}, {"expires": -5},
        {"expires": _ETA}, {"eta": _ETA, "expires": (_ETA + timedelta(1)).isoformat()},
    ],
    ids=str,
)  # fmt: skip
def test_times_from_now_are_those_of_celery(pair: Pair, options: dict[str, Any]) -> None:
    for app in (pair.ours, pair.stock):
        app.tasks["work"].apply_async((1,), task_id="id-1", **options)
    (one,), (other,) = pair.written(), pair.stocks()
    same(pair, one, other, but={"eta", "expires", "expiration"})
    left = [int(message["properties"].get("expiration", 0)) for message in (one, other)]
    assert abs(left[0] - left[1]) < 20_000
    for name in ("eta", "expires"):
        texts = [message["headers"][name] for message in (one, other)]
        if texts[1] is None:
            assert texts[0] is None
        else:
            first, second = (datetime.fromisoformat(text) for text in texts)
            assert abs(first - second) < timedelta(seconds=20)


def test_follow_ups_are_written_as_celery_writes_them(pair: Pair) -> None:
    def signature(app: Any, x: Any) -> Any:
        return app.signature("work", args=(x,), kwargs={"at": _ETA}, app=app)

    for app in (pair.ours, pair.stock):
        app.tasks["work"].apply_async(
            (1,), task_id="id-1", link=signature(app, 2), link_error=[signature(app, 3)],
            chain=[dict(signature(app, 4))], chord=dict(signature(app, 5), chord_size=2),
        )  # fmt: skip
    (one,), (other,) = pair.written(), pair.stocks()
    same(pair, one, other)


def test_what_json_does_not_know_is_marked_as_kombu_marks_it(pair: Pair) -> None:
    values = [_ETA, _ETA.date(), _ETA.time(), Decimal("1.50"), UUID(int=7), b"text"]
    for app in (pair.ours, pair.stock):
        app.send_task("elsewhere", values, {"nested": [{"at": _ETA}]}, task_id="id-1")
    (one,), (other,) = pair.written(), pair.stocks()
    same(pair, one, other)
    decoded = pair.read(one).decode()
    assert decoded[0] == [*values]
    pair.ours.send_task("elsewhere", (b"\xff\x00",))
    assert pair.read(pair.written()[0]).decode()[0] == [b"\xff\x00"]


def test_what_is_no_number_stays_so(pair: Pair) -> None:
    for app in (pair.ours, pair.stock):
        app.tasks["measured"].apply_async(([float("nan"), float("inf")], None), task_id="1")
    for payload in (*pair.written(), *pair.stocks()):
        args, _, _ = pair.read(payload).decode()
        assert isnan(args[0][0])
        assert args[0][1:] + args[1:] == [float("inf"), None]


def test_texts_of_a_class_of_their_own_are_texts(pair: Pair) -> None:
    pair.ours.tasks["work"].apply_async((Colour.RED,), headers={"colour": Colour.RED})
    (one,) = pair.written()
    assert pair.read(one).decode()[0] == ["red"]
    assert one["headers"]["colour"] == "red"


def test_canvas_is_written_as_celery_writes_it(pair: Pair) -> None:
    """Ids are made by Celery and differ; all else of the messages that a canvas begins with is the same."""

    def begin(app: Any) -> None:
        def s(x: int, **options: Any) -> Any:
            made = app.signature("work", args=(x,), app=app, immutable=True)
            return made.set(**options)

        chain(s(1), s(2, countdown=5), s(3), app=app).apply_async()
        group([s(1), s(2), s(3)], app=app).apply_async()
        chain(s(1), group([s(2), s(3)], app=app), s(4), app=app).apply_async()

    begin(pair.ours)
    begin(pair.stock)
    ours, stock = pair.written(), pair.stocks()
    assert len(ours) == len(stock) == 5
    for one, other in zip(ours, stock, strict=True):
        same(
            pair, _without_ids(pair, one), _without_ids(pair, other),
            but={"id", "root_id", "parent_id", "group", "correlation_id"},
        )  # fmt: skip
        assert (one["headers"]["group"] is None) is (other["headers"]["group"] is None)
        assert one["properties"]["correlation_id"] == one["headers"]["id"]


def test_a_chords_header_is_written_as_celery_writes_it(pair: Pair) -> None:
    def begin(app: Any) -> None:
        body = app.signature("work", app=app)
        header = [app.signature("work", args=(n,), app=app) for n in range(2)]
        for index, member in enumerate(header):
            member.apply_async(
                task_id=f"m{index}", group_id="g", group_index=index,
                chord=dict(chord(header, body, app=app).body, chord_size=2),
            )  # fmt: skip

    begin(pair.ours)
    begin(pair.stock)
    for one, other in zip(pair.written(), pair.stocks(), strict=True):
        same(pair, one, other)


def _without_ids(pair: Pair, payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with the ids that Celery makes for follow-ups taken out of its body."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: "*"
                if key in ("task_id", "root_id", "parent_id", "group_id", "reply_to")
                else strip(item)
                for key, item in value.items()
            }
        return [strip(item) for item in value] if isinstance(value, list) else value

    body = pair.read(payload).decode()
    properties = {key: value for key, value in payload["properties"].items() if key != "body_encoding"}
    return {**payload, "body": dumps(strip(body)), "properties": properties}


def test_logs_and_monitors_see_no_secret_and_no_flood(pair: Pair) -> None:
    pair.ours.tasks["hidden"].delay("Ann", token="open sesame")
    (hidden,) = pair.written("side")
    assert hidden["headers"]["argsrepr"] == "('Ann',)"
    assert hidden["headers"]["kwargsrepr"] == "{'token': '***'}"
    sealed = pair.read(hidden).decode()[1]["token"]
    # A signature that carries the secret for another task shows it no more than that task's own message.
    pair.ours.tasks["work"].delay(sealed)
    pair.ours.tasks["work"].delay("x" * 100_000)
    carried, large = pair.written()
    assert carried["headers"]["argsrepr"] == "('***',)"
    assert len(large["headers"]["argsrepr"]) <= 1100


def test_who_listens_to_celerys_signals_hears_of_each_message(pair: Pair) -> None:
    """OpenTelemetry's instrumentation, say: it puts the trace into the headers before they are written."""
    heard: dict[str, list[dict[str, Any]]] = {"ours": [], "stock": []}
    now = ["ours"]

    def before(sender: Any = None, **told: Any) -> None:
        told["headers"]["traceparent"] = "00-1"
        told["properties"]["user_id"] = "u"
        told["body"][1]["added"] = _ETA
        heard[now[0]].append({"what": "before", "sender": sender, **told})

    def after(sender: Any = None, **told: Any) -> None:
        heard[now[0]].append({"what": "after", "sender": sender, **told})

    def sent(sender: Any = None, **told: Any) -> None:
        heard[now[0]].append({"what": "sent", "sender": sender, **told})

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    signals.task_sent.connect(sent)
    try:
        for now[0], app in (("ours", pair.ours), ("stock", pair.stock)):
            app.tasks["work"].apply_async((1,), {"a": 1}, task_id="id-1")
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
        signals.task_sent.disconnect(sent)
    (one,), (other,) = pair.written(), pair.stocks()
    same(pair, one, other)
    assert one["headers"]["traceparent"] == "00-1"
    assert [said["what"] for said in heard["ours"]] == ["before", "after", "sent"]
    for ours, stock in zip(heard["ours"], heard["stock"], strict=True):
        assert ours.keys() == stock.keys(), ours["what"]
        for name in ("sender", "exchange", "routing_key", "task_id", "eta", "taskset"):
            assert ours.get(name) == stock.get(name)
        if "body" in ours:
            assert [list(ours["body"][0]), *ours["body"][1:]] == [list(stock["body"][0]), *stock["body"][1:]]
