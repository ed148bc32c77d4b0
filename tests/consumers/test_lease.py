"""One process owns a rule at a time."""

import asyncio
import json
import time

import pytest
from nats.js.api import StreamConfig

from gateway.consumers import lease as leases
from gateway.consumers.errors import NotOwner
from gateway.consumers.lease import Lease
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.events.position import Position
from support.eventstream import linked, publish_events
from support.rule_streams import arrived, connected, make_target, payloads, rule
from support.rules import runner_of, running
from support.waiting import eventually, within


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


async def test_a_rule_has_one_owner_until_it_shows_no_sign_of_life(stream):
    clock = Clock()
    async with linked(stream) as link:
        await link.wait_up()
        first, second = (Lease(LeaseBucket(link), "low", owner, clock) for owner in ("a", "b"))
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
        lease = Lease(LeaseBucket(link), "low", "a", time.monotonic)
        await lease.open()
        assert await lease.take()
        stored = lease.record  # as if the answer of the next write had not come
        copy = {"owner": "a", "position": {"created": "made", "seq": 5}, "beat": stored.beat + 1}
        async with connected(stream) as client:
            await client.jetstream().publish("$KV.TIDEGATE_RULES.low", json.dumps(copy).encode())
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
            monkeypatch.setattr(owner._target, "beat", asyncio.Event().wait)
            await eventually(lambda: standby.running, "the standby runs")
            await publish_events(stream, [{"soc": 2}] * 100, first=101)
            await payloads(stream, 200)
    ids = [message.headers["Nats-Msg-Id"] for message in await arrived(stream)]
    assert ids == [f"default:veh-1:rule/low:{seq}" for seq in range(1, 201)]


def writes(stream):
    """Messages that the bucket was ever given."""

    async def found():
        async with connected(stream) as client:
            return (await client.jetstream().stream_info("KV_TIDEGATE_RULES")).state.last_seq

    return found()


async def leases_of(link, *names, owner="a"):
    bucket = LeaseBucket(link)
    found = [Lease(bucket, name, owner, time.monotonic) for name in names]
    for each in found:
        await each.open()
    return found


@pytest.mark.parametrize("atomic", [True, False])
async def test_leases_that_are_written_together_are_each_compared_and_set(stream, atomic):
    names = [f"r{number}" for number in range(20)]
    if not atomic:
        async with connected(stream) as client:
            subjects = ["$KV.TIDEGATE_RULES.>"]
            config = StreamConfig("KV_TIDEGATE_RULES", subjects=subjects, max_msgs_per_subject=1)
            await client.jetstream().add_stream(config)
    async with linked(stream) as link:
        await link.wait_up()
        mine = await leases_of(link, *names)
        assert all(await asyncio.gather(*(each.take() for each in mine)))
        (other,) = await leases_of(link, "r7", owner="b")
        await other.take()
        record = {"owner": "b", "position": None, "mark": 0, "beat": 9}
        async with connected(stream) as client:  # another process took one of them over
            jetstream = client.jetstream()  # its answer says that the record is stored
            await jetstream.publish("$KV.TIDEGATE_RULES.r7", json.dumps(record).encode())
        saves = (each.save(Position("made", place), place) for place, each in enumerate(mine))
        found = await asyncio.gather(*saves, return_exceptions=True)
        assert [name for name, each in zip(names, found, strict=True) if each] == ["r7"]
        assert isinstance(found[7], NotOwner)
        await asyncio.gather(
            *(each.save(Position("made", 99), 0) for each in mine if each is not mine[7])
        )
        for each in await leases_of(link, *names, owner="b"):
            assert await each.take() == (each.record.owner == "b")


async def test_leases_of_one_moment_are_written_in_one_batch(stream, monkeypatch):
    names = [f"r{number}" for number in range(20)]
    async with linked(stream) as link:
        client = await link.wait_up()
        mine = await leases_of(link, *names)
        await asyncio.gather(*(each.take() for each in mine))
        asked = []
        request = client.request

        async def counted(subject, *args, **options):
            asked.append(subject)
            return await request(subject, *args, **options)

        monkeypatch.setattr(client, "request", counted)
        before = await writes(stream)
        await asyncio.gather(*(each.save(Position("made", 1), 0) for each in mine))
        assert await writes(stream) == before + len(names)
        assert len(asked) == 1


async def test_who_is_cancelled_takes_no_other_lease_along(stream):
    async with linked(stream) as link:
        await link.wait_up()
        mine = await leases_of(link, "r1", "r2", "r3")
        await asyncio.gather(*(each.take() for each in mine))
        saves = [asyncio.create_task(each.save(Position("made", 5), 0)) for each in mine]
        await asyncio.sleep(0)
        saves[0].cancel()
        await asyncio.gather(*saves[1:])
        assert {each.record.position.seq for each in mine[1:]} == {5}


async def test_a_lease_is_released_although_its_last_write_was_cancelled(stream):
    """A process is stopped while it stores a position, which is stored: no answer is heard."""
    stored = asyncio.Event()

    async with linked(stream) as link:
        await link.wait_up()
        (lease,) = await leases_of(link, "r")
        assert await lease.take()
        bucket = lease._bucket

        class Unheard:
            async def write(self, *arguments):
                await bucket.write(*arguments)
                stored.set()
                await asyncio.Event().wait()

        lease._bucket = Unheard()
        saving = asyncio.create_task(lease.save(Position("made", 7), 1))
        await within(stored.wait())
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        lease._bucket = bucket
        await lease.release()
        (other,) = await leases_of(link, "r", owner="b")
        assert await other.take()
        assert other.record.position == Position("made", 7)
