"""Which of several beats works: a lease in Valkey, by the server's clock alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from errands.broker.client import Client

# KEYS 1 lease, 2 counter of tokens.  ARGV 1 our name, 2 milliseconds.
# Reply: our token; 0 where somebody else leads.
_HOLD = """
local held = redis.call('GET', KEYS[1])
if held then
  local token, name = string.match(held, '^(%d+):(.*)$')
  if name ~= ARGV[1] then return 0 end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(token)
end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], token .. ':' .. ARGV[1], 'PX', ARGV[2])
return token
"""
_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Leader:
    """Holds the lease while it can. Call `step` about three times in `seconds`.

    A leader that is cut off from Valkey stops by itself, before its lease can pass to another: `leading`
    turns false `seconds` after the last renewal *was sent*, the lease ends `seconds` after it arrived.

    Args:
        client: a client of Valkey.
        key: the lease.
        name: of this beat, unique among all that may run: host and process id, say.
        seconds: how long the lease lasts; after a crash another beat leads within this time.
        token_key: the counter of fencing tokens; by default `key` with `:token` behind it.
        monotonic: seconds that only grow; a test passes its own.
    """

    def __init__(
        self,
        client: Client,
        key: str,
        name: str,
        seconds: float = 10.0,
        *,
        token_key: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.seconds = seconds
        self._client: Any = client
        self._keys = (key, token_key or f"{key}:token")
        self._monotonic = monotonic
        self._until = 0.0
        self._token = 0

    @property
    def leading(self) -> bool:
        """Whether this beat leads now. Ask before each thing that only the leader may do."""
        return self._token > 0 and self._monotonic() < self._until

    @property
    def token(self) -> int:
        """The fencing token: each new leader's is higher than all before. 0 when not leading."""
        return self._token if self.leading else 0

    def step(self) -> bool:
        """Take the lease if it is free, renew it if it is ours. Returns `leading`.

        Raises:
            redis.RedisError: Valkey did not answer; `leading` stays true until the lease could have ended.
        """
        asked = self._monotonic()
        if asked >= self._until:
            self._token = 0
        token = int(self._client.eval(_HOLD, 2, *self._keys, self.name, int(self.seconds * 1000)))
        self._token, self._until = token, asked + self.seconds if token else 0.0
        return self.leading

    def release(self) -> None:
        """Give the lease back, so that another beat leads at once."""
        token, self._token = self._token, 0
        if token:
            self._client.eval(_RELEASE, 1, self._keys[0], f"{token}:{self.name}")
