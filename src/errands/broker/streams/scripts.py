"""The scripts of the queues, and how they are run."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from errands.broker.client import Client


class Script:
    """A script put together from files in `broker/lua`. All its values are arguments: it declares no keys.

    Args:
        names: of the files, without the ending; what one needs comes before it.
    """

    def __init__(self, *names: str) -> None:
        folder = files("errands.broker").joinpath("lua")
        self.text = "\n".join(folder.joinpath(f"{name}.lua").read_text() for name in names)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Client, *args: Any) -> Any:
        """Run it, in one round trip; in two on a server that does not know it yet.

        Args:
            client: must not be one of kombu's that prefix keys: it would prefix the first argument.
        """
        execute: Any = client.execute_command
        try:
            return execute("EVALSHA", self.digest, 0, *args)
        except NoScriptError:
            return execute("EVAL", self.text, 0, *args)


READ = Script("moves", "fair", "read")
SETTLE = Script("moves", "settle")
BURY = Script("moves", "bury")
UPKEEP = Script("fair", "put", "moves", "adopt", "limits", "attempt", "waiting", "upkeep")
PUT = Script("fair", "put", "put_one")
PUT_OFF = Script("fair", "put", "moves", "put_off")
DEPTH = Script("moves", "depth")
PURGE = Script("moves", "limits", "attempt", "waiting", "purge")
REMOVE_DELAYED = Script("limits", "attempt", "waiting", "remove_delayed")
