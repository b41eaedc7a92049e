"""The life of one attempt, step by step: admitted → arguments → resources → call → outcome.

The steps are functions of this module, in this order. Celery's tracer stands around them: it calls `attempt`
where it would call the task's function, stores the result, sends callbacks, and then has `settling.py` tell
the end.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import redis
from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry

from errands.batch import Batch
from errands.broker.answer import Answer
from errands.broker.runs import Reply, Verdict
from errands.core import clock, green
from errands.core.batches import filling
from errands.core.errors import RunCancelled, Snooze, UntrustedMessage
from errands.core.events import Event, Kind
from errands.core.outcome import Again, Done, Outcome, Over, decide
from errands.core.payloads import FIELD
from errands.core.scrubbing import harmless, variants
from errands.core.states import State
from errands.worker import admission, deadlines, renewed
from errands.worker.host import Host
from errands.worker.loop import process_loop
from errands.worker.pool.job import isolate, limited
from errands.worker.resume import HandOver
from errands.worker.run import Run, current
from errands.worker.settling import Attempt, WorkerDied, settle
from errands.worker.starting import LOOK_AGAIN, envelope_of, redelivered, say_started

logger = logging.getLogger("errands.run")

_INLINE_SNOOZES = 100
# A worker can wait for a broker that is away for a minute; nobody waits for the worker.
_PATIENCE = {"max_retries": 20, "interval_start": 0.1, "interval_step": 0.4, "interval_max": 5.0}
_NOT_STARTED = {
    Verdict.REFUSED: "it has ended or was revoked",
    Verdict.STALE: "it was sent on since",
    Verdict.RUNNING: "another worker is at it",
}


def attempt(task: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make one attempt at the run that `request` is about; in inline mode, all of them.

    Returns what the task returned.

    Raises:
        Ignore: the run must not start (it was revoked, has ended, or is running elsewhere).
        celery.exceptions.Retry: another attempt was sent.
        Exception: the run is over; this is its error.
    """
    snoozes = 0
    while True:
        present = request.errands = Attempt(admit(task, request), clock.timestamp())
        args, kwargs = request.args, request.kwargs  # a later request may have changed them
        outcome = try_once(task, request, present.run, args, kwargs)
        present.outcome = outcome = deadlines.in_time(outcome, envelope_of(request))
        match outcome:
            case Done(value):
                return value
            case Over(error):
                # Told at once, since a caller who wants errors raised leaves Celery's tracer before its end.
                if request.is_eager and not getattr(task, "autoretry_for", None):
                    settle(task)
                raise error
            case Again(error, wait, counted) if request.is_eager:
                settle(task)
                snoozes += not counted
                if snoozes > _INLINE_SNOOZES:
                    raise RuntimeError(
                        f"{task.name} was snoozed {_INLINE_SNOOZES} times in inline mode, where nothing else "
                        "can happen meanwhile that it may wait for"
                    ) from error
                request.retries += counted
                clock.pass_time(wait)
            case Again(error, wait, counted):
                raise send_again(task, error, wait, counted=counted)


def admit(task: Any, request: Any) -> Run:
    """Say that the run starts; learn whether it may, and which attempt it is."""
    host: Host = task.app
    envelope = envelope_of(request)
    hop = int(envelope.get("hop", 0))
    verdict, number, _, about = say_started(task, request, envelope, hop)
    if verdict is Verdict.RUNNING:
        verdict, number, _, about = take_over(task, request, envelope, hop)
    if verdict is Verdict.ALONE:
        verdict, number, _, about = wait_alone(task, request, envelope, hop)
    if verdict is Verdict.EARLY:
        renewed.put_off(task, request, float(about) / 1000, _PATIENCE)
    if verdict in _NOT_STARTED:
        if about == "batch":  # just now, and nobody else tells those who wait for its result
            task.backend.mark_as_revoked(request.id, "its batch was revoked", request=request)
        elif verdict is Verdict.REFUSED:
            tell_chord(task, request)
        logger.info("%s[%s] is not started: %s", task.name, request.id, _NOT_STARTED[verdict])
        raise Ignore(_NOT_STARTED[verdict])
    envelope.pop("copy", None)  # from here on it is the run's own message
    run = Run(
        request.id, task.name, attempt=number, owner=envelope.get("owner"), hop=hop, log=host.live,
        interval=host.settings.progress_interval, effects=lambda: host.effects,
        result_max=host.settings.result_max,
        schedule=envelope.get("schedule"), due=envelope.get("due"),
        batch=_batch_of(task, request, envelope), limits=host.added_limits,
    )  # fmt: skip
    unasked: Answer | None = vars(request).pop("errands_start", None)
    if unasked is not None:
        unasked.then(partial(_hear_start, task.name, run, unasked))
    if verdict is Verdict.POISON:
        request.errands = Attempt(run, clock.timestamp())
        error = WorkerDied(
            f"{host.settings.max_deliveries} workers died while they were at this run; it is not tried again"
        )
        request.errands.outcome = Over(error, discarded=False)
        raise error
    if about:
        try:
            renewed.take(task, request, about)
        except UntrustedMessage as untrusted:
            request.errands = Attempt(run, clock.timestamp(), Over(untrusted, discarded=True))
            raise
    return run


def _hear_start(task: str, run: Run, start: Answer) -> None:
    """What the server says of an attempt that began without its leave."""
    try:
        reply = start.result()
    except redis.RedisError as exc:  # its end will not be recorded either, and its message goes back
        logger.warning("%s[%s]: its start could not be recorded: %s", task, run.id, exc)
        return
    run.hear(reply)
    if reply.verdict is not Verdict.OK:
        logger.warning("%s[%s] has begun, and is not wanted: %s", task, run.id, reply.verdict)


def take_over(task: Any, request: Any, envelope: dict[str, Any], hop: int) -> Reply:
    """Its run is at work already, in the hands of a worker that lives. Is the process that works on it alive?

    When a child of prefork dies before the main process has heard that it began, Celery gives the message
    to another child: no broker would give it out again.
    """
    run = task.app.live.get(request.id)
    facts = run.facts if run is not None else {}
    here = facts.get("worker") == request.hostname
    if here and not _lives(facts.get("pid")):
        return say_started(task, request, envelope, hop, died=True)
    if here or redelivered(request) or envelope.get("copy"):
        look_again(task)
    return Reply(Verdict.RUNNING, 0, 0)  # else whoever is at it has a message of its own


def wait_alone(task: Any, request: Any, envelope: dict[str, Any], hop: int) -> Reply:
    """On its last chance a run, which may be what took the workers down, starts when it is alone in this one.

    It does not count as started while it waits: what takes the worker down meanwhile is somebody else.
    """
    if not envelope.get("copy"):  # of a copy the server wants to hear that its run is still at work
        note = "workers died while they were at this run; it waits until it is alone in its worker"
        event = Event(kind=Kind.LOST, run_id=request.id, at=clock.timestamp(), task=task.name, note=note)
        task.app.live.record(event, hop=hop)
    isolate()
    return say_started(task, request, envelope, hop, alone=True)


def tell_chord(task: Any, request: Any) -> None:
    """Let the chord that a run is a part of hear that it was revoked, or its body waits for ever.

    Celery's worker does so where it remembers that the run was revoked; ours may have been started since.
    """
    if not request.chord or request.is_eager:
        return
    run = task.app.live.get(request.id)
    if run is not None and run.state is State.REVOKED:
        task.backend.mark_as_revoked(request.id, "revoked", request=request)


def try_once(task: Any, request: Any, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call the task's function with its arguments and resources; say what came of it."""
    host: Host = task.app
    secrets: list[str] = []
    try:
        if task.rules.limits:
            admission.refuse_excess(task, request)
        if FIELD in kwargs:  # some of them were too large for the message
            args, kwargs = host.with_payload(task, args, kwargs)
        args, kwargs = task.arguments.restore(args, kwargs, host.keyring, secrets)
        if secrets:
            run.secrets = secrets[:] = variants(secrets)
        made_current = current.set(run)
        # Inline, an attempt is made in the middle of its caller's block; what it sends is not of that block.
        block = filling.set(None) if filling.get() is not None else None
        try:
            return Done(_call(task, run, args, kwargs))
        finally:
            current.reset(made_current)
            if block is not None:
                filling.reset(block)
    except (Ignore, Reject, CeleryRetry) as error:  # Celery's own ways to end an attempt
        harmless(error, secrets)
        raise
    except (RunCancelled, HandOver, BaseExceptionGroup) as error:
        return _stopped(task, request, run, error, secrets)
    except Exception as error:  # noqa: BLE001 — what it means is decided in one place
        return _failed(task, request, run, error, secrets)


def _failed(task: Any, request: Any, run: Run, error: BaseException, secrets: list[str]) -> Outcome:
    try:
        run.flush()
    except redis.RedisError:
        logger.warning("%s[%s]: its last checkpoint could not be written", task.name, run.id, exc_info=True)
    outcome = decide(error, task.rules.policy, request.retries + 1)
    return replace(outcome, error=harmless(error, secrets)) if secrets else outcome


def _stopped(task: Any, request: Any, run: Run, error: BaseException, secrets: list[str]) -> Outcome:
    """The attempt ended because it was told to, if that is what the error, or a group of them, says.

    Raises:
        Ignore: the run is no longer wanted, or another attempt is at it.
    """
    group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
    if group.subgroup(RunCancelled) is not None:
        why = run.leave()
        tell_chord(task, request)
        logger.info("%s[%s] ends here: %s", task.name, run.id, why)
        raise Ignore(why) from error
    if group.subgroup(HandOver) is not None:
        return Again(Snooze(0, "the worker stops; the run goes on from its checkpoint"), 0, counted=False)
    if isinstance(error, Exception):
        return _failed(task, request, run, error, secrets)
    raise error


def _call(task: Any, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    host: Host = task.app
    wanted = task.arguments.resources
    bound = (task,) if task.takes_itself else ()
    if task.is_async:
        if wanted:
            coroutine = _call_with_resources(task, run, bound, args, kwargs)
        else:
            coroutine = task.function(*bound, *args, **kwargs)
        with limited():
            return green.wait(coroutine) if green.in_green() else process_loop().run(coroutine)
    if not wanted:
        with limited():
            return task.function(*bound, *args, **kwargs)
    with limited(), host.resources.given(wanted, run) as given:
        full, named = task.arguments.merge(args, kwargs, given)
        return task.function(*bound, *full, **named)


async def _call_with_resources(
    task: Any, run: Run, bound: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    async with task.app.resources.given_async(task.arguments.resources, run) as given:
        full, named = task.arguments.merge(args, kwargs, given)
        return await task.function(*bound, *full, **named)


def send_again(task: Any, error: BaseException, wait: float, *, counted: bool) -> CeleryRetry:
    """Send the run's next attempt; the returned exception tells Celery's tracer so."""
    request = task.request
    signature = task.signature_from_request(request, countdown=wait, retries=request.retries + counted)
    try:
        signature.apply_async(retry=True, retry_policy=_PATIENCE)
    except Exception as exc:  # noqa: BLE001 — whatever it was, the next attempt is not on its way
        # The message at hand is still ours: let the broker give it out again.
        raise Reject(exc, requeue=True) from error
    return CeleryRetry(exc=error, when=wait, sig=signature)


def look_again(task: Any) -> None:
    """Somebody alive is at the run whose message the broker gave out a second time: keep a copy, in case the
    owner dies after all. It starts only then; once the run has ended it is dropped."""
    request = task.request
    envelope = envelope_of(request)
    envelope = {**envelope, "hop": int(envelope.get("hop", 0)), "copy": True}
    headers = {**(request.headers or {}), "errands": envelope}
    signature = task.signature_from_request(
        request, countdown=LOOK_AGAIN, retries=request.retries, headers=headers
    )
    try:
        signature.apply_async()
    except Exception as exc:
        raise Reject(exc, requeue=True) from exc


def _lives(pid: int | None) -> bool:
    """Whether the process `pid` of this machine works; True where nobody knows its number."""
    try:
        return pid is None or psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _batch_of(task: Any, request: Any, envelope: dict[str, Any]) -> Batch | None:
    batch_id = envelope.get("batch")
    return None if batch_id is None else Batch(task.app, batch_id, root_id=request.root_id)
