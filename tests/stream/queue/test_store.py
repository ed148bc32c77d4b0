"""The stream COMMANDS on a real nats-server, as the queue asks it."""

import asyncio

import pytest

from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.link.client import LinkClient
from gateway.stream.names import COMMANDS
from gateway.stream.provisioning.provision import (
    StreamSettings,
    provision,
    server_version,
    stream_configs,
)
from gateway.stream.queue.asking import CommandQueue
from gateway.stream.queue.facts import Entry, Fact, queue_subject
from gateway.stream.queue.status import Status
from gateway.stream.queue.store import CommandStore
from support.servers import nats_server

KEY = ("default", "veh-1")
ENTRY = b'{"id":"c-1","type":"t","expires":"2099-01-01T00:00:00Z"}'
SETTINGS = StreamSettings(
    replicas=1, max_age_s=0, max_bytes=0, duplicate_window_s=120, deny_delete=True, deny_purge=True
)


@pytest.fixture
async def client(tmp_path):
    with nats_server(tmp_path) as server:
        client = LinkClient()
        await client.connect(server.url, allow_reconnect=False)
        await provision(client, stream_configs({COMMANDS: SETTINGS}, server_version(client)))
        yield client
        await client.discard()


@pytest.fixture
async def store(client):
    store = CommandStore("node")
    await store.on_up(client)
    return store


async def test_a_fact_is_stored_behind_the_one_that_was_read(store):
    assert await store.last(KEY, "c-1") is None
    first = await store.write(KEY, "c-1", Fact(Status.QUEUED, "t"), 0)
    second = await store.write(KEY, "c-1", Fact(Status.SENT, "t", fence=1), first)
    for stale in (0, first):
        with pytest.raises(FactConflict):
            await store.write(KEY, "c-1", Fact(Status.FAILED, "t", fence=2), stale)
    stored = await store.last(KEY, "c-1")
    assert (stored.seq, stored.fact.status) == (second, Status.SENT)
    with pytest.raises(FactConflict):  # the same again, as if its answer had been lost
        await store.write(KEY, "c-1", Fact(Status.SENT, "t", fence=1), first)
    assert (await store.last(KEY, "c-1")).seq == second


async def test_an_entry_is_deleted_once_wherever_it_stands(client, store):
    stream = client.jetstream()
    seqs = [(await stream.publish(queue_subject(KEY), ENTRY)).seq for _ in range(4)]
    assert (await store.entry(seqs[1])).id == "c-1"
    for seq in (seqs[1], seqs[1], seqs[0], seqs[0], seqs[3], seqs[3], seqs[3] + 9):
        await store.delete(seq)  # inside, first, last, and one that never was
        assert await store.entry(seq) is None
    assert (await store.entry(seqs[2])).id == "c-1"


async def test_a_fact_that_cannot_be_read_settles_its_command(client, store):
    await client.jetstream().publish("commands.status.default.veh-1.c-1", b"{")
    assert (await store.last(KEY, "c-1")).fact.status is Status.FAILED


async def test_without_a_connection_nothing_is_known(client, store):
    await client.discard()
    with pytest.raises(StoreAway):
        await store.last(KEY, "c-1")


async def test_facts_of_one_moment_are_stored_together_and_each_has_its_sequence(store):
    names = [f"c-{number}" for number in range(20)]
    facts = [store.write(KEY, name, Fact(Status.QUEUED, "t"), 0) for name in names]
    seqs = await asyncio.gather(*facts)
    for name, seq in zip(names, seqs, strict=True):
        assert (await store.last(KEY, name)).seq == seq


async def test_a_fact_that_conflicts_keeps_none_of_the_others_from_being_stored(store):
    taken = await store.write(KEY, "c-1", Fact(Status.QUEUED, "t"), 0)
    names = ["c-0", "c-1", "c-2"]
    facts = [store.write(KEY, name, Fact(Status.FAILED, "t"), 0) for name in names]
    first, second, third = await asyncio.gather(*facts, return_exceptions=True)
    assert isinstance(second, FactConflict)
    assert (await store.last(KEY, "c-1")).seq == taken
    assert [(await store.last(KEY, name)).seq for name in ("c-0", "c-2")] == [first, third]


async def test_an_entry_that_is_put_again_is_stored_once_with_one_fact(client):
    queue = CommandQueue()
    await queue.on_up(client)
    entry = Entry("c-9", "t", "2099-01-01T00:00:00Z")
    await queue.put(KEY, entry)
    await queue.put(KEY, entry)
    assert [each.entry.id async for each in queue.waiting(KEY)] == ["c-9"]
    assert [each.status async for each in queue.facts(KEY, "c-9")] == [Status.QUEUED]
    stream = await client.jetstream().stream_info(COMMANDS)
    assert stream.state.messages == 2
