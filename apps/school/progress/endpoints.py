"""Watching a run: by whoever is signed in and owns it, or by whoever holds its link."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from errands.core.errors import BrokerUnavailable, RunNotFound
from errands.doors.fastapi import Person
from errands.doors.fastapi.route import ErrandsRoute
from errands.doors.fastapi.sse import EventResponse
from errands.kits.storage import LinkExpired, LinkForged
from errands.ops.errors import RecordUnavailable
from errands.ops.views import Ops
from school.access import person
from school.app import app
from school.pages import page, prefers_html
from school.progress import links
from school.progress.watching import Watching, look

router = APIRouter(tags=["runs"], route_class=ErrandsRoute)


@router.get("/tasks/{task_id}", response_model=None)
def task(task_id: str, who: Annotated[Person, Depends(person)], request: Request) -> Response:
    """A run of one's own: the same as `/api/tasks/<id>`, or, for browsers, a page to watch it on."""
    run: dict[str, Any] = Ops(app).run(who, task_id)
    if prefers_html(request):
        return _page(task_id)
    return JSONResponse(run, headers={"Vary": "Accept"})


@router.get("/progress/{task_id}")
def watch(task_id: str, request: Request) -> HTMLResponse:
    """The page behind a `progress_url`."""
    try:
        links.check(task_id, request.query_params)
        return _page(task_id)
    except LinkForged:
        return _closed(403, "This link was not made here, or it was changed.")
    except LinkExpired:
        return _closed(410, "This link was good for a day, which is over.")
    except RunNotFound:
        return _closed(404, "Nothing is known of this work any more.")
    except (BrokerUnavailable, RecordUnavailable):
        return _closed(503, "Nobody can say at the moment. Load this page again in a while.")


@router.get("/progress/{task_id}/events", response_class=Response, include_in_schema=False)
async def events(task_id: str, request: Request) -> Response:
    """What the page shows, as server-sent events `state`, until nothing more will change."""
    try:
        links.check(task_id, request.query_params)
    except LinkForged as error:
        raise HTTPException(403, str(error)) from None
    except LinkExpired as error:
        raise HTTPException(410, str(error)) from None
    return EventResponse(await Watching.begin(task_id))


def _page(task_id: str) -> HTMLResponse:
    return page(
        "progress", run=look(task_id), problem=None, here=links.page(task_id), events=links.events(task_id)
    )


def _closed(status: int, problem: str) -> HTMLResponse:
    return page("progress", status, run=None, problem=problem, here="", events="")
