"""The kit's two tasks: one text to many, one template to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from errands import Retry, Run
from errands.kits.messaging.bulk import BulkMessages
from errands.kits.messaging.numbers import LONGEST
from errands.kits.messaging.provider import LONGEST_TEXT

if TYPE_CHECKING:
    from errands import Errands

MOST = 100_000  # recipients of one run

# Only the shape: whether there is such a number takes too long to ask for 100,000 of them in a request. It is
# looked at in the run, and told in the row.
Number = Annotated[
    str, StringConstraints(min_length=3, max_length=LONGEST, pattern=r"^\s*\(?\+?[0-9(][0-9 ().\/-]*$")
]
Numbers = Annotated[list[Number], Field(min_length=1, max_length=MOST)]
MessageText = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_TEXT, pattern=r"\S")]
Values = dict[str, str] | list[str]

_RETRY = Retry(3, first=60, most=600)


class BulkRequest(BaseModel):
    """The body of an endpoint that starts `send_bulk_messages`: `POST /api/send-bulk-messages`."""

    phone_numbers: Numbers
    message: MessageText
    message_type: Literal["text"] = "text"


def register(app: Errands) -> None:
    """Declare the tasks on `app`."""

    @app.task(
        name="send_bulk_messages", queue="messaging", retry=_RETRY, offload=True, soft_time_limit=600,
        time_limit=900,
    )  # fmt: skip
    async def send_bulk_messages(
        phone_numbers: Numbers,
        message: MessageText,
        message_type: Literal["text"] = "text",
        *,
        run: Run,
        messages: BulkMessages,
    ) -> dict[str, int]:
        return (await messages.send(run, phone_numbers, message)).as_dict()

    @app.task(
        name="send_template_message", queue="messaging", retry=_RETRY, soft_time_limit=600, time_limit=900
    )
    async def send_template_message(
        phone_number: Number,
        template: str,
        values: Values | None = None,
        *,
        run: Run,
        messages: BulkMessages,
    ) -> dict[str, str]:
        sent = await messages.send_template(run, phone_number, template, values or {})
        return {"status": "sent", "message_id": sent}
