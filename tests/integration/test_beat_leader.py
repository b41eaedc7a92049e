"""One leader among several beats, by the server's clock."""

from __future__ import annotations

import threading
from itertools import pairwise

import redis

from errands.beat.leader import Leader


class Seconds:
    """A monotonic clock that is told what time it is."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_leads_and_the_other_takes_over(valkey: redis.Redis, key_prefix: str) -> None:
    first, second = (Leader(valkey, f"{key_prefix}lead", name) for name in ("a", "b"))
    assert first.step()
    assert not second.step()
    assert first.step()  # renewed
    assert (first.token, second.token) == (1, 0)
    first.release()
    assert not first.leading
    assert second.step()
    assert second.token == 2


def test_one_that_died_is_followed_when_its_lease_ends(valkey: redis.Redis, key_prefix: str) -> None:
    key = f"{key_prefix}lead"
    assert Leader(valkey, key, "dead").step()
    second = Leader(valkey, key, "b")
    assert not second.step()
    assert 0 < valkey.pttl(key) <= 10_000
    valkey.pexpire(key, 1)  # the server's clock, moved on
    while valkey.exists(key):
        pass
    assert second.step()
    assert second.token == 2


def test_cut_off_from_the_server_it_stops_by_itself(valkey: redis.Redis, key_prefix: str) -> None:
    seconds = Seconds()
    leader = Leader(valkey, f"{key_prefix}lead", "a", seconds=10, monotonic=seconds)
    leader.step()
    seconds.now += 9.9
    assert leader.leading
    seconds.now += 0.2
    assert not leader.leading
    assert leader.token == 0


def test_a_late_owner_does_not_take_the_lease_back(valkey: redis.Redis, key_prefix: str) -> None:
    seconds, key = Seconds(), f"{key_prefix}lead"
    late = Leader(valkey, key, "late", monotonic=seconds)
    late.step()
    valkey.delete(key)  # it ran out
    other = Leader(valkey, key, "other")
    assert other.step()
    assert not late.step()
    late.release()
    assert other.step()
    assert other.token == 2


def test_of_many_at_once_one_leads(valkey: redis.Redis, key_prefix: str) -> None:
    """Each that leads gives the lease back; tokens only grow, and no two have the same."""
    tokens: list[int] = []
    holding = threading.Lock()
    clashes: list[str] = []

    def campaign(name: str) -> None:
        leader = Leader(valkey, f"{key_prefix}lead", name)
        won = 0
        while won < 10:
            if leader.step():
                if holding.acquire(blocking=False):
                    tokens.append(leader.token)
                    holding.release()
                else:
                    clashes.append(name)
                leader.release()
                won += 1

    threads = [threading.Thread(target=campaign, args=(f"beat-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert clashes == []
    assert len(tokens) == 40
    assert all(earlier < later for earlier, later in pairwise(tokens))
