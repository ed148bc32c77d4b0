"""One process owns a rule at a time."""

import asyncio
import time

import pytest

from gateway.consumers import lease as leases
from gateway.consumers.errors import NotOwner
from gateway.consumers.lease import Lease
from gateway.events.position import Position
from support.eventstream import linked, publish_events
from support.rule_streams import arrived, make_target, payloads, rule
from support.rules import runner_of, running
from support.waiting import eventually


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


async def test_a_rule_has_one_owner_until_it_shows_no_sign_of_life(stream):
    clock = Clock()
    async with linked(stream) as link:
        await link.wait_up()
        first, second = (Lease(link, "low", owner, clock) for owner in ("a", "b"))
        await first.open()
        await second.open()
        assert await first.take()
        await first.save(Position("made", 7, "id"), 3)
        assert not await second.take()
        clock.now += leases.LEASE_S + 1
        await first.beat()
        assert not await second.take()  # it has just changed
        clock.now += leases.LEASE_S + 1
        with pytest.raises(NotOwner):
            first.check()
        assert await second.take()
        assert (second.record.position, second.record.mark) == (Position("made", 7, "id"), 3)
        second.check()
        for late in (first.beat(), first.save(Position("made", 9), 9)):
            with pytest.raises(NotOwner):
                await late
        await first.release()  # changes nothing
        await second.beat()
        await second.release()
        assert await first.take()


async def test_a_write_whose_answer_was_lost_is_still_the_owners(stream):
    async with linked(stream) as link:
        await link.wait_up()
        lease = Lease(link, "low", "a", time.monotonic)
        await lease.open()
        assert await lease.take()
        before = lease._revision, lease.record
        await lease.save(Position("made", 5), 0)
        lease._revision, lease.record = before  # as if the answer had not come
        await lease.save(Position("made", 7), 0)
        assert lease.record.position == Position("made", 7)


async def test_a_standby_takes_over_without_gap_or_double(stream, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    await make_target(stream)
    async with linked(stream) as link:
        owner, standby = runner_of(link, rule()), runner_of(link, rule(), owner="standby")
        async with running(owner), running(standby):
            await eventually(lambda: owner.running or standby.running)
            await publish_events(stream, [{"soc": 1}] * 100)
            await payloads(stream, 100)
            if standby.running:
                owner, standby = standby, owner
            # It hangs: no beat, no release.
            monkeypatch.setattr(owner._target, "beat", lambda: asyncio.sleep(3600))
            await eventually(lambda: standby.running, "the standby runs")
            await publish_events(stream, [{"soc": 2}] * 100, first=101)
            await payloads(stream, 200)
    ids = [message.headers["Nats-Msg-Id"] for message in await arrived(stream)]
    assert ids == [f"default:veh-1:rule/low:{seq}" for seq in range(1, 201)]
