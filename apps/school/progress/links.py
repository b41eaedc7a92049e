"""The links to progress pages: signed, for one run, for a day. Browsers send no bearer token."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, quote, urlsplit

from errands.kits.storage import link_signer
from errands.kits.storage.keys import key_for
from school import mail
from school.app import app

LINK_SECONDS = 24 * 3600
_SIGNED = ("expires", "signature")
_NAME = "progress"


def page(task_id: str) -> str:
    """The address of the run's page."""
    return mail.page(f"/progress/{quote(task_id, safe='')}?{query(task_id)}")


def events(task_id: str) -> str:
    """The path of the run's stream of events, for its page."""
    return f"/progress/{quote(task_id, safe='')}/events?{query(task_id)}"


def query(task_id: str) -> str:
    """What opens both."""
    link = link_signer(app.settings).sign(_key(task_id), filename=_NAME, expires_in=LINK_SECONDS)
    found = parse_qs(urlsplit(link).query)
    return "&".join(f"{name}={quote(found[name][0])}" for name in _SIGNED)


def check(task_id: str, given: Mapping[str, str]) -> None:
    """Whether the query `given` opens the page of this run.

    Raises:
        LinkForged: it was not made for it.
        LinkExpired: it was; its day is over.
    """
    link_signer(app.settings).check(
        _key(task_id), {"name": _NAME, **{name: given.get(name, "") for name in _SIGNED}}
    )


def _key(task_id: str) -> str:
    """A key under which no file is ever stored, so that no link opens both a file and a page."""
    return key_for("progress", task_id)
