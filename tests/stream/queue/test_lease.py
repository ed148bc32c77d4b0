"""Which node settles the commands whose time has passed."""

import random

import pytest

from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.queue.lease import LEASE_S, SUBJECT, ExpiryLease


class Store:
    def __init__(self):
        self.messages = {}
        self.last = 0
        self.away = False

    async def read(self, subject):
        assert subject == SUBJECT
        if self.away:
            raise StoreAway
        return max(self.messages.items(), default=None)

    async def append(self, subject, data, message_id, after):
        assert subject == SUBJECT
        assert message_id
        if max(self.messages, default=0) != after:
            raise FactConflict
        self.last += 1
        self.messages[self.last] = data
        return self.last

    async def delete(self, seq):
        del self.messages[seq]


class Fleet:
    def __init__(self):
        self.now = 0.0
        self.store = Store()
        self.one, self.two = (
            ExpiryLease(self.store, name, clock=lambda: self.now, rng=random.Random(1))
            for name in ("one", "two")
        )

    async def pass_time(self, seconds, *leases):
        for _ in range(int(seconds)):
            self.now += 1.0
            for lease in leases:
                await lease.look()

    @property
    def held(self):
        return self.one.held, self.two.held


async def test_a_single_node_holds_it_and_one_message_is_kept():
    fleet = Fleet()
    await fleet.pass_time(100, fleet.one)
    assert fleet.held == (True, False)
    assert len(fleet.store.messages) == 1


async def test_of_two_nodes_one_holds_it_and_the_other_takes_over():
    fleet = Fleet()
    await fleet.pass_time(50, fleet.one, fleet.two)
    assert fleet.held == (True, False)
    await fleet.pass_time(LEASE_S - 1, fleet.two)
    assert not fleet.two.held
    await fleet.pass_time(3, fleet.two)
    assert fleet.held == (False, True)
    await fleet.pass_time(50, fleet.two, fleet.one)  # the first node comes back
    assert fleet.held == (False, True)


async def test_of_two_that_take_it_at_once_one_is_told():
    fleet = Fleet()
    before = await fleet.store.read(SUBJECT)

    async def stale(_subject):
        return before

    await fleet.one.look()
    fleet.store.read = stale
    with pytest.raises(FactConflict):
        await fleet.two.look()
    assert fleet.held == (True, False)


async def test_a_node_that_cannot_store_it_gives_it_up_before_another_takes_it():
    fleet = Fleet()
    await fleet.pass_time(1, fleet.one)
    fleet.store.away = True
    fleet.now += LEASE_S - 1
    assert not fleet.one.held
