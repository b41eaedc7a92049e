"""The header `Idempotency-Key`: a request that is repeated with it is the same request.

The answers follow the IETF's draft "The Idempotency-Key HTTP Header Field": 400 without a key, 422 for a key
that was used for something else.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, HTTPException

_KEY = re.compile(r"[\x21-\x7e]{1,200}")


async def _key(idempotency_key: Annotated[str | None, Header()] = None) -> str:
    if idempotency_key is None or not _KEY.fullmatch(idempotency_key.strip('"')):
        raise HTTPException(
            400,
            "Send the header Idempotency-Key: 1 to 200 visible characters, new for each payment, the same "
            "when one is repeated.",
        )
    return idempotency_key.strip('"')


IdempotencyKey = Annotated[str, Depends(_key)]


def used_otherwise() -> HTTPException:
    """The answer to a key that was sent before with another request."""
    return HTTPException(422, "This Idempotency-Key was used for another request; take a new one.")
