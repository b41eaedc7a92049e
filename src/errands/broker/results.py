"""Celery's Redis result backend: fewer round trips, and states that are true.

- Nothing happens when a run is sent: `AsyncResult.get` subscribes before it looks for the result. (Stock
  Celery subscribes at every send, on a connection that dies with the server.)
- The result of an attempt is kept in the very call that records its end (`worker/settling.py`), so that the
  two cannot disagree, and a late owner's result is refused with its end.
- Who asks for a run without a result is told its live state, STARTED, PROGRESS and RETRY included, which
  therefore need not be stored for them.

A plain Celery program reads what is kept here: keys and values are those of Celery's own backend.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec
from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError

from errands.broker.green import greened
from errands.broker.runs import LiveRun, LiveRuns, Result
from errands.core.states import celery_status

# A success that is stored stays: a second, failing delivery of the same message does not undo it.
_SUCCESS = '"status": ?"SUCCESS"'
_PLAIN = (type(None), bool, int, str)


class Backend(RedisBackend):
    """Set as `result_backend` for `redis://` and `rediss://` addresses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made: dict[str, Any] = vars(self)["connparams"]
        # What Celery's own code reads and writes in a task on a worker's loop must not hold it up.
        self.connparams = greened(made)

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Called by Celery for each attempt. An ordinary success, by far the most frequent end, goes straight
        to the record of its end."""
        attempt: Any = getattr(request, "errands", None)
        ordinary = state == states.SUCCESS and hasattr(attempt, "result") and not request.chord and not kwargs
        if not ordinary or self._extended or self._live(same_server=True) is None:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        attempt.result = self._kept(task_id, state, self._success_meta(task_id, result, request))
        return result

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Called by Celery for each run that is sent."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = _text(task_id)
        kept = self._kept(task_id, state, meta)
        # In the worker's main process it is no attempt but our part of the message's headers.
        attempt: Any = getattr(request, "errands", None)
        live = self._live(same_server=True)
        if live is not None and hasattr(attempt, "result") and not request.chord:
            attempt.result = kept if state in states.READY_STATES else None
        elif live is not None:
            live.store(kept, _SUCCESS)
        else:
            super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        meta: dict[str, Any] = super()._get_task_meta_for(task_id)
        if meta["status"] != states.PENDING or (live := self._live()) is None:
            return meta
        run = live.get(_text(task_id))
        if run is None:
            return meta
        if run.final:
            # Kept together with the end, which may have come between the two looks.
            meta = super()._get_task_meta_for(task_id)
            if meta["status"] != states.PENDING:
                return meta
        told: dict[str, Any] = self.meta_from_decoded({**meta, **_meta_of(run), "task_id": _text(task_id)})
        return told

    def _live(self, *, same_server: bool = False) -> LiveRuns | None:
        """The live states of the app, if it keeps any (in Valkey; `same_server`: where the results are)."""
        live = getattr(self.app, "live", None)
        if not isinstance(live, LiveRuns):
            return None
        return live if not same_server or self._where_events_are else None

    @cached_property
    def _where_events_are(self) -> bool:
        return bool(self.app.settings.result_url == self.app.settings.valkey_url)

    @cached_property
    def _zone(self) -> Any:
        return self.app.timezone

    @cached_property
    def _extended(self) -> bool:
        return bool(self.app.conf.find_value_for_key("extended", "result"))

    def _success_meta(self, task_id: str, result: Any, request: Any) -> dict[str, Any]:
        """What `_get_result_meta` makes of a success, without looking up what is known."""
        meta = {
            "status": states.SUCCESS,
            "result": result,
            "traceback": None,
            "children": self.current_task_children(request) if request.children else [],
            "date_done": datetime.now(self._zone).isoformat(),
        }
        if request.group:
            meta["group_id"] = request.group
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        meta["task_id"] = _text(task_id)
        return meta

    def _kept(self, task_id: str, state: str, meta: dict[str, Any]) -> Result:
        value = self._encoded(meta)
        if len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError("value too large for Redis backend", state=state, task_id=task_id)
        return Result(self._key_prefix + _text(task_id), self._seconds(state), value)

    @cached_property
    def _key_prefix(self) -> str:
        return _text(self.get_key_for_task("-"))[:-1]

    def _seconds(self, state: str) -> int:
        seconds = getattr(self, "failure_expires", None) if state == states.FAILURE else None
        return int(seconds or self.expires or 0)

    def _encoded(self, meta: dict[str, Any]) -> str | bytes:
        if self.serializer == "json" and type(meta["result"]) in _PLAIN and not meta.get("children"):
            return msgspec.json.encode(meta)
        encoded: str | bytes = self.encode(meta)
        return encoded


def _meta_of(run: LiveRun) -> dict[str, Any]:
    """A live state as Celery's result backends tell it."""
    progress, error = run.facts.get("progress"), run.facts.get("error")
    status = celery_status(run.state, has_progress=bool(progress))
    result: Any = None
    if status == "PROGRESS":
        result = progress
    elif status == states.STARTED:
        result = {"hostname": run.facts.get("worker")}
    elif status == states.REVOKED:
        result = {
            "exc_type": "TaskRevokedError",
            "exc_message": [run.state.value],
            "exc_module": "celery.exceptions",
        }
    elif status in (states.RETRY, states.FAILURE) and error:
        result = {
            "exc_type": error.get("type"),
            "exc_message": [error.get("message")],
            "exc_module": "builtins",
        }
    return {"status": status, "result": result}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
