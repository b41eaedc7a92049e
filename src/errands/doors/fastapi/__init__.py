"""Runs over HTTP, for FastAPI.

    from errands.doors.fastapi import Person, acting_person, errands_router

    api.include_router(errands_router(app, person=signed_in))   # signed_in: a dependency that gives a Person

    @api.post("/reports", status_code=202)
    def report(person: Person = Depends(acting_person(app, signed_in))):
        return {"task_id": make_report.delay(person.id).id}     # the run is the person's

`create_api(app)` is a whole application with nothing but these endpoints.
"""

from errands.doors.fastapi.api import create_api
from errands.doors.fastapi.people import acting_person, current_person
from errands.doors.fastapi.router import errands_router
from errands.ops.access import Person

__all__ = ["Person", "acting_person", "create_api", "current_person", "errands_router"]
