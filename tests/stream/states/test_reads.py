"""States as a real nats-server answers for them, and its follower after a stream was made anew."""

import asyncio
import random

import nats
import pytest
from nats.js.api import StreamConfig

from gateway.stream.states.follower import StateFollower
from gateway.stream.states.known import Known, KnownStates, desired_of
from gateway.stream.states.reads import StateReads
from support.eventstream import add_stream, linked
from support.servers import nats_server
from support.waiting import eventually, within

CONFIG = StreamConfig("STATE", subjects=["state.*.*"], max_msgs_per_subject=1, allow_direct=True)


def key(number):
    return "t", f"veh-{number}"


def payload(number, size=1):
    return b'{"desired":{"n":%d,"x":"%b"}}' % (number, b"x" * size)


@pytest.fixture
async def server(tmp_path):
    with nats_server(tmp_path) as running:
        client = await nats.connect(running.url)
        running.stream = client.jetstream()
        await running.stream.add_stream(CONFIG)
        yield running
        await client.close()


async def test_many_states_come_in_one_answer_which_says_how_far_its_replica_is(server):
    for number in range(1, 21):
        await server.stream.publish(f"state.t.veh-{number}", payload(number))
    await server.stream.publish("state.t.other", b"[]")
    async with linked(server) as link, StateReads(await link.wait_up(), 10.0) as reads:
        keys = [key(number) for number in range(11, 31)]
        found, up_to, whole = await reads.direct(keys, "state.t.other")
        assert (up_to, whole) == (21, True)
        assert found.pop(("t", "other")).sequence == 0
        assert found == {key(n): Known(n, desired_of(payload(n))) for n in range(11, 21)}
        # Nobody has a state: without a witness, the answer does not say how far its replica is.
        assert await reads.direct([key(99)], None) == ({}, 0, True)
        found, up_to, whole = await reads.direct([key(99)], "state.t.veh-1")
        assert (list(found), up_to, whole) == ([key(1)], 21, True)


async def test_an_answer_that_is_cut_says_so(server):
    for number in range(40):
        await server.stream.publish(f"state.t.veh-{number}", payload(number, 50_000))
    async with linked(server) as link, StateReads(await link.wait_up(), 10.0) as reads:
        found, up_to, whole = await reads.direct([key(number) for number in range(40)], None)
        assert 10 < len(found) < 40
        assert (up_to, whole) == (40, False)
        told = await reads.of_leader("state.t.veh-39")
        assert told == ("state.t.veh-39", 40, payload(39, 50_000))
        assert await reads.of_leader("state.t.nobody") is None


async def test_the_follower_goes_on_with_a_stream_that_was_made_anew(server):
    await server.stream.publish("state.t.veh-1", payload(1))
    known, told, anew = KnownStates(100_000), [], []
    async with linked(server) as link:
        follower = StateFollower(
            link,
            known,
            on_set=lambda _key, version, _desired: told.append(version.sequence),
            on_anew=lambda: anew.append(known.epoch),
            rng=random.Random(1),
        )
        following = asyncio.create_task(follower.run())
        await within(follower.begun.wait())
        assert (known.floor, known.witness) == (1, "state.t.veh-1")
        await eventually(lambda: server.stream.consumers_info("STATE"))
        for number in range(5):  # of one device, the newest may replace what is not read yet
            await server.stream.publish(f"state.t.veh-{number}", payload(number))
        await eventually(lambda: told == [2, 3, 4, 5, 6])
        first = known.epoch
        await server.stream.delete_stream("STATE")
        await add_stream(server.stream, CONFIG)
        await eventually(lambda: anew)
        assert known.epoch > first
        assert known.get(key(1)) is None
        await eventually(lambda: server.stream.consumers_info("STATE"))
        await server.stream.publish("state.t.veh-1", payload(9))
        await eventually(lambda: told[-1] == 1)
        following.cancel()
        await asyncio.wait({following})
