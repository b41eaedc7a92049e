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

    # -- queues

    def stream(self, queue: str, level: str) -> str:
        """Stream: the messages of one level that wait in a queue; level is "high", "normal" or "low"."""
        return f"{self.prefix}q:{queue}:{level}"

    def front(self, queue: str, level: str) -> str:
        """Stream: what was given back or rescued, read before the level's other stream."""
        return f"{self.prefix}q:{queue}:{level}:front"

    def delayed(self, queue: str) -> str:
        """Sorted set: members of delayed messages by when they are due (ms since 1970, server's clock)."""
        return f"{self.prefix}q:{queue}:delayed"

    def delayed_messages(self, queue: str) -> str:
        """Hash: level and message of each delayed member. Members are run ids: see `lua/put.lua`."""
        return f"{self.prefix}q:{queue}:delayed:messages"

    def dead(self, queue: str) -> str:
        """Stream: the queue's dead letters, the newest some 10,000."""
        return f"{self.prefix}q:{queue}:dead"

    @property
    def paused(self) -> str:
        """Set: names of queues that no worker reads for now."""
        return f"{self.prefix}paused"

    @property
    def sweep(self) -> str:
        """Hash: when workers without a lease were last looked for, and since when without interruption."""
        return f"{self.prefix}sweep"

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
