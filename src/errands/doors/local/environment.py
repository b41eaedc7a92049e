"""The environment that the processes of a local run are given: where everything is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from errands.doors.local.home import Home
from errands.doors.local.ports import LOOPBACK

# Under each of these names a user may have said where mail shall go.
MAIL_HOST_NAMES = ("ERRANDS_SMTP_HOST", "SMTP_HOST", "EMAIL_HOST")
# A worker is given less time to end its tasks than the whole local run has to end.
WORKER_SHUTDOWN_SECONDS = "1.5"


@dataclass(frozen=True)
class Ports:
    """The ports of the local run's servers, all on the loopback address."""

    web: int
    valkey: int
    smtp: int
    mail: int
    webhooks: int


def environment(
    home: Home, ports: Ports, broker_url: str, app: str, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`inherited` (by default this process's own) with everything that the local run decides.

    Where data and mail go is left as the user has set it (`ERRANDS_DATABASE_URL`, `SMTP_HOST`).
    """
    values = dict(os.environ if inherited is None else inherited)
    values.setdefault("ERRANDS_DATABASE_URL", f"sqlite:///{home / 'errands.db'}")
    values.setdefault("ERRANDS_SHUTDOWN_TIMEOUT", WORKER_SHUTDOWN_SECONDS)
    if not any(values.get(name) for name in MAIL_HOST_NAMES):
        for name in ("USERNAME", "PASSWORD"):
            values.pop(f"SMTP_{name}", None)
        values |= {
            "ERRANDS_SMTP_HOST": LOOPBACK,
            "ERRANDS_SMTP_PORT": str(ports.smtp),
            "ERRANDS_SMTP_USE_TLS": "false",
            "ERRANDS_SMTP_USE_SSL": "false",
            "SMTP_HOST": LOOPBACK,
            "SMTP_PORT": str(ports.smtp),
            "SMTP_USE_TLS": "false",
        }
    return values | {
        "ERRANDS_APP": app,
        "ERRANDS_HOME": str(home.path),
        "ERRANDS_BROKER_URL": broker_url,
        "ERRANDS_RESULT_URL": broker_url,
        "ERRANDS_VALKEY_URL": broker_url,
        "ERRANDS_SECRET_KEYS": home.secret_keys(),
        "ERRANDS_STORAGE_PATH": str(home / "files"),
        "ERRANDS_PUBLIC_URL": f"http://{LOOPBACK}:{ports.web}",
        "ERRANDS_METRICS_OPEN": "true",
        "ERRANDS_WEBHOOK_ALLOW": f"{LOOPBACK}:{ports.webhooks}",
        # Lines appear when they are written, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
    }


def mail_goes_elsewhere(inherited: Mapping[str, str] | None = None) -> str | None:
    """The mail host that the user has set, if any: then nothing reaches the local inbox."""
    values = os.environ if inherited is None else inherited
    return next((values[name] for name in MAIL_HOST_NAMES if values.get(name)), None)
