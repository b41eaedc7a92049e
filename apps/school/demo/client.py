"""The running school, its mail catcher and its webhook receiver, as the demo talks to them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import httpx

T = TypeVar("T")


class DemoError(Exception):
    """A step did not do what it should; the text says what was seen instead."""


class Tell(Protocol):
    """Hears a few words on what is going on, and how far it is."""

    def __call__(self, text: str, done: float | None = None, total: float | None = None) -> None: ...


def say_nothing(text: str, done: float | None = None, total: float | None = None) -> None:
    """For when nobody listens."""


class School:
    """The people at the school's API, and the places where what it sends arrives.

    Raises:
        DemoError: nothing is running: there is no `access.json`, or its address does not answer.
    """

    def __init__(self, home: Path | None = None) -> None:
        path = (home or Path(os.environ.get("ERRANDS_HOME", ".errands"))) / "access.json"
        try:
            self.access: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as exc:
            raise DemoError(f"nothing is running here ({path} is missing): start it with `make up`") from exc
        self._tokens: dict[str, str] = {}
        self._http = httpx.Client(base_url=self.access["url"], timeout=30)
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

    def call(
        self,
        method: str,
        path: str,
        *,
        expect: int = 200,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """One request; its JSON, or its bytes. Raises DemoError for another status than the one expected."""
        signed = {"Authorization": f"Bearer {token}"} if token else {}
        response = self._http.request(method, path, headers={**signed, **(headers or {})}, **options)
        if response.status_code != expect:
            raise DemoError(f"{method} {path} answered {response.status_code}: {response.text[:300]}")
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json else response.content

    def sign_in(self, email: str, password: str) -> str:
        """A bearer token."""
        answer = self.call("POST", "/login", json={"email": email, "password": password})
        return str(answer["access_token"])

    def token(self, who: str) -> str:
        """A bearer token of the seeded admin, instructor or student; signed in once."""
        if who not in self._tokens:
            self._tokens[who] = self.sign_in(self.access[f"{who}_email"], self.access[f"{who}_password"])
        return self._tokens[who]

    def result(self, task_id: str, token: str, tell: Tell = say_nothing) -> Any:
        """The result of a run, as soon as it is over; `tell` hears how far it is meanwhile.

        Raises:
            DemoError: it did not succeed, or not within a minute.
        """

        def over() -> dict[str, Any] | None:
            seen: dict[str, Any] = self.call("GET", f"/api/tasks/{task_id}/progress", token=token)
            if seen["status"] in ("completed", "failed"):
                return seen
            tell(seen["note"] or seen["status"], seen["current"], seen["total"])
            return None

        ended = wait_for(over, f"the end of run {task_id}", every=0.1)
        if ended["status"] == "failed":
            raise DemoError(f"run {task_id}: {ended['error']}")
        return ended["result"]

    def mails(self, to: str) -> list[dict[str, Any]]:
        """The mails that were caught for an address."""
        found: list[dict[str, Any]] = self.call(
            "GET", f"{self.access['mail_url']}/api/messages", params={"to": to}
        )
        return found

    def hook(self, name: str, events: list[str]) -> str:
        """Let the receiver be told of these events, under a name; returns the webhook's id."""
        url = f"{self.access['webhooks_url']}/hook/{name}"
        body = {"url": url, "events": events}
        made = self.call("POST", "/webhooks", expect=201, token=self.token("admin"), json=body)
        secret = {name: made["secret"]}
        self.call("PUT", f"{self.access['webhooks_url']}/api/secrets", expect=204, json=secret)
        return str(made["id"])

    def unhook(self, webhook_id: str) -> None:
        """Take a webhook away."""
        self.call("DELETE", f"/webhooks/{webhook_id}", expect=204, token=self.token("admin"))

    def webhooks(self, name: str) -> list[dict[str, Any]]:
        """What the receiver got under a name."""
        url = f"{self.access['webhooks_url']}/api/deliveries"
        found: list[dict[str, Any]] = self.call("GET", url, params={"name": name})
        return found


def wait_for(look: Callable[[], T | None], what: str, seconds: float = 60.0, every: float = 0.05) -> T:
    """What `look` finds, as soon as it finds something. Raises DemoError when it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(every)
    raise DemoError(f"{what} did not happen within {seconds:g} s")
