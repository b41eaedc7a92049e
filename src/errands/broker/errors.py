"""Foreign errors of the broker, translated at one boundary."""

from __future__ import annotations

import redis
from kombu.exceptions import OperationalError

from errands.core.errors import BrokerUnavailable


class BrokerDown(BrokerUnavailable, OperationalError):
    """`BrokerUnavailable` for those who catch ours, `OperationalError` for those who catch kombu's."""


class NotHeard(redis.ConnectionError):
    """A call was written and its answer never came: nobody knows whether it was done."""
