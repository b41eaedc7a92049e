"""The running school, its mail catcher and its webhook receiver, as the demo talks to them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

T = TypeVar("T")


class DemoError(Exception):
    """A step did not do what it should; the text says what was seen instead."""


class School:
    """A person at the school's API, and the two places where its letters arrive.

    Raises:
        DemoError: nothing is running: there is no `access.json`, or its address does not answer.
    """

    def __init__(self, home: Path | None = None) -> None:
        path = (home or Path(os.environ.get("ERRANDS_HOME", ".errands"))) / "access.json"
        try:
            self.access: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as exc:
            raise DemoError(f"nothing is running here ({path} is missing): start it with `make up`") from exc
        self._http = httpx.Client(base_url=self.access["url"], timeout=10)
        try:
            self._http.get("/healthz").raise_for_status()
        except httpx.HTTPError as exc:
            raise DemoError(f"{self.access['url']} does not answer ({exc}): start it with `make up`") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, *, expect: int, token: str | None = None, **options: Any) -> Any:
        """One request; its JSON. Raises DemoError for another status than the one expected."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = self._http.request(method, path, headers=headers, **options)
        if response.status_code != expect:
            raise DemoError(f"{method} {path} answered {response.status_code}: {response.text[:300]}")
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json else response.content

    def sign_in(self, email: str, password: str) -> str:
        """A bearer token."""
        answer = self.call("POST", "/login", expect=200, json={"email": email, "password": password})
        return str(answer["access_token"])

    def mails(self, to: str) -> list[dict[str, Any]]:
        """The mails that were caught for an address."""
        found: list[dict[str, Any]] = self.call(
            "GET", f"{self.access['mail_url']}/api/messages", expect=200, params={"to": to}
        )
        return found

    def webhooks(self, name: str) -> list[dict[str, Any]]:
        """What the receiver got under a name."""
        url = f"{self.access['webhooks_url']}/api/deliveries"
        found: list[dict[str, Any]] = self.call("GET", url, expect=200, params={"name": name})
        return found


def wait_for(look: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """What `look` finds, as soon as it finds something. Raises DemoError when it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise DemoError(f"{what} did not happen within {seconds:g} s")
