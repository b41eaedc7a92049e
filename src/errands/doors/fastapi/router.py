"""The endpoints for runs. They translate; what is decided is decided in `errands.ops`.

All but the stream of events are plain functions: they ask servers, and FastAPI calls them in a thread.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from fastapi.params import Depends as DependsMarker
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from errands.app import Errands
from errands.doors.fastapi.bulk import add_bulk
from errands.doors.fastapi.deliveries import add_deliveries
from errands.doors.fastapi.effects import add_effects
from errands.doors.fastapi.letters import add_letters
from errands.doors.fastapi.limits import add_limits
from errands.doors.fastapi.people import PersonDependency
from errands.doors.fastapi.route import ErrandsRoute
from errands.doors.fastapi.schedules import add_schedules
from errands.doors.fastapi.sse import EventResponse
from errands.ops import metrics, probes
from errands.ops.access import Person, require_admin
from errands.ops.actions import Actions
from errands.ops.views import Ops
from errands.ops.watch import Live

Answer = dict[str, Any]

_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Not signed in"},
    403: {"description": "Not allowed"},
    404: {"description": "No such run, or somebody else's"},
    409: {"description": "Not possible in the run's present state"},
    503: {"description": "The broker or the database does not answer"},
}


class Asked(BaseModel):
    """The body of an action."""

    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")


class AskedToRevoke(Asked):
    """The body of a revocation."""

    terminate: bool = Field(default=False, description="end the process that works on the run")


def errands_router(app: Errands, person: PersonDependency | DependsMarker) -> APIRouter:
    """Endpoints to look at runs, to act on them and to watch the system: `docs/ops.md` lists them.

    Args:
        app: whose runs.
        person: a dependency that gives the `Person` who asks (or `Depends(…)` of one). It raises 401 where
            nobody is signed in; a None from it is answered with 401 as well.
    """
    given = person.dependency if isinstance(person, DependsMarker) else person
    assert given is not None  # noqa: S101 — Depends() without a function makes sense in annotations only
    ops, actions, live = Ops(app), Actions(app), Live(app)

    def asking(found: Person | None = Depends(given)) -> Person:
        if found is None:
            raise HTTPException(401, "not signed in", headers={"WWW-Authenticate": "Bearer"})
        return found

    router = APIRouter(route_class=ErrandsRoute, tags=["runs"])

    @router.get("/api/tasks/{task_id}", responses=_errors(401, 404, 503))
    def run(task_id: str, who: Person = Depends(asking)) -> Answer:
        """A run: state, result or error, progress, attempts, times."""
        return ops.run(who, task_id)

    @router.get("/api/tasks/{task_id}/status", responses=_errors(401, 404, 503))
    def status(task_id: str, who: Person = Depends(asking)) -> Answer:
        """Whether a run is over, and what came of it."""
        return ops.status(who, task_id)

    @router.get("/api/tasks/{task_id}/progress", responses=_errors(401, 404, 503))
    def progress(task_id: str, who: Person = Depends(asking)) -> Answer:
        """How far a run is: queued, processing, completed or failed."""
        return ops.progress(who, task_id)

    @router.get(
        "/api/tasks/{task_id}/events",
        responses={**_errors(401, 404, 503), 204: {"description": "The run is over and all was told"}},
        response_class=Response,
    )
    async def events(
        task_id: str,
        who: Person = Depends(asking),
        last_event_id: str | None = Header(None),
    ) -> Response:
        """A run as it happens: server-sent events `state`, `progress`, `log`, until its final state."""
        watch = await live.watch(who, task_id, last_event_id)
        return EventResponse(watch) if watch is not None else Response(status_code=204)

    @router.post("/api/tasks/{task_id}/revoke", status_code=202, responses=_errors(401, 403, 404, 409, 503))
    def revoke(task_id: str, asked: AskedToRevoke | None = None, who: Person = Depends(asking)) -> Answer:
        """Let a run not start, or not start again; with `terminate`, end it."""
        asked = asked or AskedToRevoke()
        return actions.revoke(who, task_id, terminate=asked.terminate, reason=asked.reason)

    @router.post("/api/tasks/{task_id}/retry", status_code=202, responses=_errors(401, 403, 404, 409, 503))
    def retry(task_id: str, asked: Asked | None = None, who: Person = Depends(asking)) -> Answer:
        """Send a run that has ended once more."""
        return actions.retry(who, task_id, reason=asked.reason if asked else None)

    @router.get("/api/celery/health", responses=_errors(401, 403))
    def health(who: Person = Depends(asking)) -> Answer:
        """Whether all is well, and why not."""
        return ops.health(who)

    @router.get("/api/celery/stats", responses=_errors(401, 403, 503))
    def stats(who: Person = Depends(asking)) -> Answer:
        """The last 24 hours in numbers."""
        return ops.stats(who)

    @router.get("/api/workers", responses=_errors(401, 403, 503))
    def workers(who: Person = Depends(asking)) -> list[Answer]:
        """What each live worker says of itself."""
        return ops.workers(who)

    @router.get("/api/queues", responses=_errors(401, 403, 503))
    def queues(who: Person = Depends(asking)) -> list[Answer]:
        """How deep each queue is, whether it is paused, and who reads it."""
        return ops.queues(who)

    @router.post("/api/queues/{name}/pause", status_code=202, responses=_errors(401, 403, 404, 409, 503))
    def pause(name: str, asked: Asked | None = None, who: Person = Depends(asking)) -> Answer:
        """Let no worker read a queue for now."""
        return actions.pause(who, name, reason=asked.reason if asked else None)

    @router.post("/api/queues/{name}/resume", status_code=202, responses=_errors(401, 403, 404, 409, 503))
    def resume(name: str, asked: Asked | None = None, who: Person = Depends(asking)) -> Answer:
        """Let workers read a queue again."""
        return actions.resume(who, name, reason=asked.reason if asked else None)

    add_letters(router, app, asking, _errors)

    add_schedules(router, app, asking, _errors)
    add_limits(router, app, asking, _errors)
    add_effects(router, app, asking, _errors)
    add_bulk(router, app, asking, _errors)
    add_deliveries(router, app, asking, _errors)

    def scraping(who: Person = Depends(asking)) -> None:
        require_admin(who, "read metrics, unless ERRANDS_METRICS_OPEN is true")

    guards = [] if app.settings.metrics_open else [Depends(scraping)]

    @router.get("/metrics", dependencies=guards, response_class=Response, tags=["watching"])
    def prometheus(request: Request) -> Response:
        """Metrics for Prometheus."""
        text, content_type = metrics.render(app, request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    @router.get("/healthz", tags=["watching"], responses=_errors(503))
    def healthz() -> Response:
        """For probes: this process is up, and the broker answers."""
        if app.settings.inline or probes.broker_answers(app):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable", "detail": "the broker does not answer"}, 503)

    return router


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: _ERRORS[code] for code in codes}
