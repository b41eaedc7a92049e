"""A sender for tests: it keeps what it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errands.kits.webhooks.provider import Reply


@dataclass(frozen=True, slots=True)
class Sent:
    """One webhook as it would have gone out."""

    url: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class FakeSender:
    """Keeps every webhook in `sent`; answers 200, or what `answer_with` was told."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._answers: list[Reply | BaseException] = []

    def answer_with(self, answer: int | Reply | BaseException, times: int = 1) -> None:
        """Let the next `times` calls of `send` answer with this status or reply, or raise this error."""
        self._answers += [Reply(answer) if isinstance(answer, int) else answer] * times

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.sent.append(Sent(url, body, dict(headers)))
        answer = self._answers.pop(0) if self._answers else Reply(200)
        if isinstance(answer, BaseException):
            raise answer
        return answer
