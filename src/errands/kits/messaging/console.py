"""Messages for development: written down instead of being sent."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from pathlib import Path
from typing import Any

from errands.core import clock
from errands.deliveries import masked
from errands.kits.messaging.provider import Content, Receipt, Text

logger = logging.getLogger("errands.messaging")


class ConsoleMessenger:
    """Writes each message as one line of JSON into a file, and tells the log so at level DEBUG.

    Processes may share the file: each line is appended whole.

    Args:
        path: the file; made where it is not there. By default `messages.jsonl` in ERRANDS_HOME.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, to: str, content: Content) -> Receipt:
        message_id = f"console-{uuid.uuid4().hex}"
        if isinstance(content, Text):
            said: dict[str, Any] = {"type": "text", "text": content.body}
        else:
            said = {
                "type": "template", "template": content.name, "values": content.named(),
                "language": content.language,
            }  # fmt: skip
        line = {"id": message_id, "at": clock.now().isoformat(), "to": to, **said}
        await asyncio.to_thread(self._append, json.dumps(line, ensure_ascii=False) + "\n")
        logger.debug("a message to %s was written to %s", masked(to), self._path)
        return Receipt(message_id)

    async def aclose(self) -> None:
        """Nothing to give back."""

    def lines(self) -> list[dict[str, Any]]:
        """All that was written, the oldest first."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]

    def _append(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # One write to a file that is open for appending is not mixed with others'.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
