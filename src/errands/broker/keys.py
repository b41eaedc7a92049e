"""Every key that Errands keeps in Valkey, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix, so that several apps can share a server."""

    prefix: str = "errands:"

    @property
    def events(self) -> str:
        """Stream: what happened to runs, until the recorder has moved it into the ledger."""
        return f"{self.prefix}events"

    def run(self, run_id: str) -> str:
        """Hash: the live state of one run."""
        return f"{self.prefix}run:{run_id}"

    @property
    def leader(self) -> str:
        """String with a lease: which beat leads."""
        return f"{self.prefix}leader"

    @property
    def leader_token(self) -> str:
        """Counter: the fencing tokens of leaders."""
        return f"{self.prefix}leader:token"

    @property
    def schedule_state(self) -> str:
        """Hash: when each schedule was last due and sent."""
        return f"{self.prefix}schedule"

    def lease(self, holder: str) -> str:
        """String with an expiry: the worker process `holder` is alive."""
        return f"{self.prefix}lease:{holder}"

    def worker(self, name: str) -> str:
        """Hash with a lease: what a live worker says of itself."""
        return f"{self.prefix}worker:{name}"

    @property
    def workers(self) -> str:
        """Sorted set: names of workers by when they were last heard of."""
        return f"{self.prefix}workers"

    @property
    def beats(self) -> str:
        """Sorted set: names of beats by when they were last heard of."""
        return f"{self.prefix}beats"

    def throttle(self, purpose: str, who: str) -> str:
        """Counter with an expiry: how often `who` did `purpose` in this window."""
        return f"{self.prefix}throttle:{purpose}:{who}"
