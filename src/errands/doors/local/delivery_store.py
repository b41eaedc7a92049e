"""Webhooks that arrived at the receiver, kept as JSON lines, and the secrets that verify them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from errands.doors.local.home import read_json, write_private

DELIVERIES_KEPT = 2_000


@dataclass(frozen=True)
class Delivery:
    """One request that arrived at a hook; `received_at` is ISO 8601 in UTC.

    `verified`: True, False, or None where no secret is known for this hook; `reason` says why it is not True.
    """

    name: str
    webhook_id: str
    event: str
    verified: bool | None
    reason: str
    status_code: int
    body: str
    headers: dict[str, str]
    received_at: str


class DeliveryStore:
    """The deliveries in `folder`, newest first, and the secret of each hook by its name."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "deliveries.jsonl"
        self._secrets_path = folder / "secrets.json"
        self._secrets: dict[str, str] = read_json(self._secrets_path, {})
        self._deliveries: deque[Delivery] = deque(self._read(), maxlen=DELIVERIES_KEPT)
        self._rewrite()

    def __iter__(self) -> Iterator[Delivery]:
        return reversed(list(self._deliveries))

    def __len__(self) -> int:
        return len(self._deliveries)

    def add(self, delivery: Delivery) -> None:
        """Keeps one more."""
        self._deliveries.append(delivery)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(delivery)) + "\n")

    def clear(self) -> None:
        """Forgets all deliveries, not the secrets."""
        self._deliveries.clear()
        self._rewrite()

    def secret(self, name: str) -> str | None:
        """The secret of a hook, or None."""
        return self._secrets.get(name)

    def set_secrets(self, secrets: dict[str, str]) -> None:
        """Registers secrets by hook name; ValueError names the first that is no usable secret."""
        for name, secret in secrets.items():
            try:
                Webhook(secret)
            except Exception:  # noqa: BLE001 - base64 errors, empty secrets: all mean the same here
                raise ValueError(f"{name}: not a webhook secret (whsec_ and base64)") from None
        self._secrets.update(secrets)
        write_private(self._secrets_path, json.dumps(self._secrets))

    def _rewrite(self) -> None:
        lines = "".join(json.dumps(asdict(delivery)) + "\n" for delivery in self._deliveries)
        write_private(self._path, lines)

    def _read(self) -> Iterator[Delivery]:
        if not self._path.exists():
            return
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                fields: dict[str, Any] = json.loads(line)
                yield Delivery(**fields)
            except (ValueError, TypeError):
                # The last line of a killed receiver can be cut off.
                continue
