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

    def line(self, queue: str, level: str) -> str:
        """Stream: what waits for its tenant's turn, and the beginning of three more names: `lua/fair.lua`."""
        return f"{self.prefix}q:{queue}:{level}:fair"

    def delayed(self, queue: str) -> str:
        """Sorted set: members of delayed messages by when they are due (ms since 1970, server's clock)."""
        return f"{self.prefix}q:{queue}:delayed"

    def delayed_messages(self, queue: str) -> str:
        """Hash: level and message of each delayed member. Members are run ids: see `lua/put.lua`."""
        return f"{self.prefix}q:{queue}:delayed:messages"

    def limited(self, queue: str) -> str:
        """Sorted set: runs of the queue that wait for a limit, by when they were sent (ms since 1970)."""
        return f"{self.prefix}q:{queue}:limited"

    def limited_messages(self, queue: str) -> str:
        """Hash: the messages of these runs, and what they wait for: see `lua/waiting.lua`."""
        return f"{self.prefix}q:{queue}:limited:messages"

    def dead(self, queue: str) -> str:
        """Stream: the queue's dead letters, the newest some 10,000."""
        return f"{self.prefix}q:{queue}:dead"

    # -- limits

    @property
    def limits(self) -> str:
        """Hash: limits that were changed while running: "kind:name" and "most period"."""
        return f"{self.prefix}limits"

    @property
    def limits_waiting(self) -> str:
        """Sorted set: limits that somebody waits for, by when to look at them again (µs, server's clock)."""
        return f"{self.prefix}limits:waiting"

    def limit(self, suffix: str) -> str:
        """What begins the keys of one limit at one value of its argument: see `lua/limits.lua`."""
        return f"{self.prefix}limit:{suffix}"

    # -- batches

    def batch(self, batch_id: str) -> str:
        """Hash: what is counted of one batch; with ":failed", the list of members that did not succeed."""
        return f"{self.prefix}batch:{batch_id}"

    @property
    def batches(self) -> str:
        """Sorted set: batches that have not ended, by the second at which their silence is too long."""
        return f"{self.prefix}batches"

    @property
    def batches_to_follow(self) -> str:
        """Set: batches that have ended, and the beat is to send what follows them."""
        return f"{self.prefix}batches:follow"

    @property
    def batches_rebuilt(self) -> str:
        """Set: batches that the server had lost, have not ended, and are counted from the ledger."""
        return f"{self.prefix}batches:rebuilt"

    # -- the system

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
        """Hash: by schedule, the newest due time that was dealt with, and the newest run."""
        return f"{self.prefix}schedule"

    @property
    def schedule_now(self) -> str:
        """Hash: by schedule, the run that a person started last."""
        return f"{self.prefix}schedule:now"

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
