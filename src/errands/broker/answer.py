"""What the server says to an operation, for code of the loop that hears it there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

from errands.broker.operations import Reply

logger = logging.getLogger("errands.batch")


class Answer:
    """Like a future of asyncio's. Who wants to hear of it is called at once, in the turn of the loop that
    brings it: a future takes another turn for each of them.

    Nobody need hear of it, and it cannot be cancelled: what is said is said.
    """

    __slots__ = ("_error", "_heard", "_loop", "_reply")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reply: Reply | None = None
        self._error: Exception | None = None
        self._heard: list[Callable[[], object]] = []

    @property
    def there(self) -> bool:
        """Whether it is there."""
        return self._reply is not None or self._error is not None

    def then(self, heard: Callable[[], object]) -> None:
        """Call `heard` when it is there, after those who asked before."""
        if self.there:
            _tell(heard)
        else:
            self._heard.append(heard)

    def result(self) -> Reply:
        """The reply.

        Raises:
            Exception: why there is none.
        """
        if self._error is not None:
            raise self._error
        assert self._reply is not None, "the server has not answered yet"  # noqa: S101
        return self._reply

    def give(self, reply: Reply | None, error: Exception | None = None) -> None:
        """It is there: a reply, or why there is none."""
        self._reply, self._error = reply, error
        heard, self._heard = self._heard, []
        for each in heard:
            _tell(each)

    def __await__(self) -> Generator[Any, Any, Reply]:
        if not self.there:
            future: asyncio.Future[None] = self._loop.create_future()
            self._heard.append(lambda: None if future.done() else future.set_result(None))
            yield from future.__await__()
        return self.result()


def _tell(heard: Callable[[], object]) -> None:
    try:
        heard()
    except Exception:  # the others are to hear as well
        logger.exception("what the server said could not be taken note of")
