"""Errors reach Sentry where a DSN is set, and secrets do not travel with them."""

from __future__ import annotations

import gzip
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sentry_sdk

from errands import ConfigurationError, Errands, Keyring, Secret, Settings
from errands.starting import report_to_sentry
from errands.testing import inline


@pytest.fixture
def sentry() -> Iterator[tuple[str, list[str]]]:
    """A server that takes what is meant for Sentry: its DSN, and the bodies that arrived."""
    arrived: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            arrived.append(body.decode("utf-8", "replace"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://key@127.0.0.1:{server.server_port}/1", arrived
    sentry_sdk.flush(5)
    sentry_sdk.init()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_failed_run_is_reported_without_its_secrets(sentry: tuple[str, list[str]], tmp_path: Path) -> None:
    dsn, arrived = sentry
    secret = uuid.uuid4().hex  # not a literal, which Sentry would quote from this file
    settings = Settings(home=tmp_path, secret_keys=Keyring.new_key())
    app = Errands("sentry", settings=settings, set_as_current=False)

    @app.task(name="reset")
    def reset(token: Secret[str]) -> None:
        local = f"{token}"
        raise RuntimeError(f"no account for {local}")

    report_to_sentry(dsn)
    with inline(app):
        result = reset.delay(secret)
    sentry_sdk.capture_exception(result.result)
    sentry_sdk.flush(10)
    told = "".join(arrived)
    assert "no account for ***" in told
    assert secret not in told


def test_a_dsn_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SENTRY_DSN"):
        report_to_sentry("not a dsn")
