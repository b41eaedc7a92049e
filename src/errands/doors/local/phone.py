"""What was sent to phones while MESSAGING_PROVIDER is "console": the lines of a file, shown on a page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from errands.doors.local.pages import page

FILE = "messages.jsonl"
SHOWN = 200
READ_BYTES = 4_000_000  # of the end of the file; some 20,000 messages


class Phone:
    """The messages in `path`, and the endpoints that show them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def routes(self) -> list[BaseRoute]:
        """The page and its API."""
        return [Route("/phone", self.screen), Route("/api/phone", self.api_list)]

    def newest(self) -> list[dict[str, Any]]:
        """The messages, newest first: id, at, to, type, and text or template. What is cut off is left out."""
        try:
            with self.path.open("rb") as file:
                begin = max(0, os.fstat(file.fileno()).st_size - READ_BYTES)
                file.seek(begin)
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        messages = []
        for line in lines[1:] if begin else lines:
            try:
                messages.append(json.loads(line))
            except ValueError:  # it is being written
                continue
        return messages[::-1]

    def screen(self, request: Request) -> Response:
        """The list of messages."""
        messages = self.newest()
        return page("phone.html", messages=messages[:SHOWN], total=len(messages))

    def api_list(self, request: Request) -> Response:
        """All of them; `to` keeps those to one number."""
        wanted = request.query_params.get("to")
        return JSONResponse([each for each in self.newest() if wanted in (None, each.get("to"))])
