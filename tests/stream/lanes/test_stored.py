"""Look-ups against a real nats-server: whichever outbox, type, stage or redrive wrote last."""

import asyncio
import gc
import random
from contextlib import asynccontextmanager
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.subscription import Subscription

from gateway.stream.lanes.encoding import SourceHeaders
from gateway.stream.lanes.history import History
from gateway.stream.lanes.stored import StoredSeqs
from gateway.stream.lanes.stored_reads import DeviceReads, parse_id
from gateway.stream.link.dialing import Hooks, NatsAddress, dial
from gateway.stream.provisioning.provision import (
    StreamSettings,
    provision,
    server_version,
    stream_configs,
)
from support.eventstream import add_stream
from support.servers import nats_server
from support.waiting import eventually, within

TIME = "2026-11-23T10:00:00Z"
WANTED = StreamSettings(1, 0, 0, 120, deny_delete=False, deny_purge=False)


class Rig:
    def __init__(self, client):
        self.client = client
        self.jetstream = client.jetstream()
        self.live = client
        self.stored = StoredSeqs(
            lambda: self.live,
            concurrency=4,
            timeout_s=5.0,
            rng=random.Random(1),
            clock=perf_counter,
        )

    @property
    def received(self):
        """Messages that NATS has sent so far."""
        return self.client.stats["in_msgs"]

    async def put(self, subject, message_id):
        await self.jetstream.publish(subject, b"{}", headers={"Nats-Msg-Id": message_id})

    async def store(self, outbox, *seqs, device="d", kind="a"):
        for seq in seqs:
            await self.put(f"events.t.{device}.{kind}", f"t:{device}:{outbox}:{seq}")

    async def last(self, outbox, device="d"):
        seq, asked_at = await within(self.stored.last_seq("t", device, outbox))
        assert asked_at <= perf_counter()
        return seq


@asynccontextmanager
async def rig_on(server, **overrides):
    client = await dial(server.url, NatsAddress((server.url,)), name="test", hooks=Hooks())
    try:
        configs = stream_configs({"EVENTS": WANTED, "DEADLETTERS": WANTED}, server_version(client))
        for config in configs:
            for name, value in overrides.items():
                setattr(config, name, value)
        await provision(client, configs)
        yield Rig(client)
    finally:
        await client.close()


@pytest.fixture
async def rig(tmp_path):
    with nats_server(tmp_path) as server:
        async with rig_on(server) as found:
            yield found


async def test_an_outbox_of_which_nothing_is_stored_stands_at_zero(rig):
    assert await rig.last("A") == 0


async def test_the_last_message_answers_if_it_is_of_that_outbox(rig):
    await rig.store("A", 1, 2)
    await rig.store("A", 3, kind="b.c")
    await rig.store("A", 9, device="other")
    before = rig.received
    assert await rig.last("A") == 3
    assert rig.received - before == 2, "an answer of each stream"


async def test_another_outbox_that_stored_last_does_not_hide_it(rig):
    await rig.store("A", 1, 2, 3)
    await rig.store("B", 1)
    assert (await rig.last("A"), await rig.last("B"), await rig.last("C")) == (3, 1, 0)


async def test_what_was_read_once_is_not_read_again(rig, monkeypatch):
    honest, read = History.chunk, []

    async def counted(history, first):
        chunk = await honest(history, first)
        read.append(len(chunk))
        return chunk

    monkeypatch.setattr(History, "chunk", counted)
    await rig.store("A", *range(1, 601))
    await rig.store("B", 1)
    assert await rig.last("A") == 600
    assert read == [250, 250, 103], "the first of a chunk is the last of the one before"
    await rig.store("A", 601)
    await rig.store("B", 2, 3)
    assert await rig.last("A") == 601
    assert read[3:] == [4], "only what is new"
    assert await rig.last("A") == 601
    assert len(read) == 4, "only the last message of each stream"


async def test_dead_letters_count_and_those_of_another_outbox_do_not_hide_them(rig):
    await rig.store("A", 1)
    await rig.put("deadletters.t.d", "t:d:A:2")
    await rig.put("deadletters.t.d", "t:d:A:3:0123456789abcdef")
    await rig.put("deadletters.t.d", "t:d:B:7")
    assert (await rig.last("A"), await rig.last("B")) == (3, 7)


async def test_redrives_and_letters_of_consumers_do_not_mislead_the_look_up(rig):
    await rig.store("A", 1, 2)
    await rig.put("events.t.d.a", "redrive:77")
    await rig.put("events.t.d.a", "t:d:rule/x:99")
    await rig.jetstream.publish("events.t.d.a", b"no id at all")
    await rig.put("deadletters.t.d.rule.x", "t:d:rule/x:99")
    assert await rig.last("A") == 2


async def test_a_stream_made_anew_is_read_from_its_start(rig):
    await rig.store("A", 1, 2, 3)
    await rig.store("B", 1)
    assert await rig.last("A") == 3
    config = (await rig.jetstream.stream_info("EVENTS")).config
    await rig.jetstream.delete_stream("EVENTS")
    await add_stream(rig.jetstream, config)
    await rig.store("C", 1)
    assert await rig.last("A") == 0
    await rig.store("A", 1)
    await rig.store("C", *range(2, 8))
    assert await rig.last("A") == 1


async def test_messages_that_expired_are_passed_over(rig):
    await rig.store("A", 1, 2)
    await rig.store("B", 1)
    assert await rig.last("A") == 2
    await rig.jetstream.purge_stream("EVENTS", seq=4)
    await rig.store("B", 2)
    await rig.store("A", 3)
    await rig.store("B", 3)
    assert (await rig.last("A"), await rig.last("B")) == (3, 3)


async def test_a_stream_without_direct_gets_is_asked_one_by_one(tmp_path):
    with nats_server(tmp_path) as server:
        async with rig_on(server, allow_direct=False) as rig:
            await rig.store("A", 1, 2, 3)
            await rig.store("B", 1)
            assert await rig.last("A") == 3


async def test_a_device_with_very_many_outboxes_is_answered_and_bounded(rig, monkeypatch):
    monkeypatch.setattr("gateway.stream.lanes.stored_reads._OUTBOXES_MAX", 3)
    for name in "ABCDEFGH":
        await rig.store(name, 1, 2)
    assert [await rig.last(name) for name in "AHCAX"] == [2, 2, 2, 2, 0]
    assert all(len(read.outboxes) <= 3 for read in rig.stored.reads.kept)


async def test_a_bounded_number_of_devices_is_remembered(rig, monkeypatch):
    monkeypatch.setattr("gateway.stream.lanes.stored_reads._DEVICES_MAX", 2)
    for name in "uvw":
        await rig.store("A", 1, device=name)
        await rig.store("B", 1, device=name)
        assert await rig.last("A", device=name) == 1
    assert len(rig.stored.reads.kept) == 2


async def test_the_outboxes_of_all_devices_together_are_bounded(rig, monkeypatch):
    monkeypatch.setattr("gateway.stream.lanes.stored_reads._ALL_OUTBOXES_MAX", 5)
    for device in "uvw":
        for name in "ABC":
            await rig.store(name, 1, device=device)
        assert await rig.last("A", device=device) == 1
        remembered = [len(read.outboxes) for read in rig.stored.reads.kept]
        assert sum(remembered) <= 5
    assert [await rig.last("B", device=device) for device in "uvw"] == [1, 1, 1]


async def test_a_question_waits_for_the_connection_and_reports_it(rig):
    await rig.store("A", 1)
    rig.live = None
    asked = asyncio.create_task(rig.last("A"))
    await eventually(lambda: rig.stored.failing)
    rig.live = rig.client
    assert await within(asked) == 1
    assert not rig.stored.failing


async def test_a_question_that_is_cancelled_frees_its_place(rig):
    rig.live = None
    questions = [asyncio.create_task(rig.last("A")) for _ in range(10)]
    await eventually(lambda: rig.stored.failing)
    for question in questions:
        question.cancel()
    await asyncio.gather(*questions, return_exceptions=True)
    rig.live = rig.client
    assert await rig.last("A") == 0


async def test_a_long_history_does_not_keep_other_devices_waiting(rig, monkeypatch):
    monkeypatch.setattr("gateway.stream.lanes.stored._CHUNKS", 1)
    monkeypatch.setattr("gateway.stream.lanes.history._CHUNK_MESSAGES", 2)
    await rig.store("A", *range(1, 41), device="long")
    await rig.store("A", 1, 2, device="short")
    for device in ("long", "short"):
        await rig.store("B", 1, device=device)
    rig = Rig(rig.client)
    keep, read = DeviceReads.keep, []

    def recorded(reads, source, found):
        read.append(source.device)
        keep(reads, source, found)

    monkeypatch.setattr(DeviceReads, "keep", recorded)
    asked = [rig.last("A", device=device) for device in ("long", "short")]
    assert await asyncio.gather(*asked) == [40, 2]
    turns_of_short = [turn for turn, device in enumerate(read) if device == "short"]
    assert turns_of_short[-1] < 10 < read.count("long")


async def test_a_look_up_leaves_nothing_to_the_collector(rig):
    def subscriptions():
        return sum(isinstance(each, Subscription) for each in gc.get_objects())

    await rig.store("A", 1)
    await rig.store("B", 1)
    assert await rig.last("A") == 1
    gc.collect()
    gc.disable()
    try:
        before = subscriptions()
        rig.stored.reads = DeviceReads()
        assert await rig.last("A") == 1
        assert subscriptions() == before
    finally:
        gc.enable()


async def test_a_replica_that_is_behind_has_not_answered(rig, monkeypatch):
    await rig.store("A", 1, 2, 3)
    await rig.store("B", 1)
    honest, behind = History.chunk, [2, 3, 3]

    async def stale(*arguments):
        chunk = await honest(*arguments)
        return [place for place in chunk if place.sequence <= (behind.pop(0) if behind else 99)]

    monkeypatch.setattr(History, "chunk", stale)
    assert await rig.last("A") == 3
    assert behind == []


async def test_the_leader_is_asked_again_if_its_last_message_has_expired(rig, monkeypatch):
    monkeypatch.setattr("gateway.stream.lanes.stored._BEHIND_S", 0.001)
    await rig.store("A", 1)
    await rig.store("B", 1)
    honest, lost = History.chunk, []

    async def losing(*arguments):
        chunk = await honest(*arguments)
        if len(lost) < 40:
            lost.append(1)
            return [place for place in chunk if place.sequence < 2]
        return chunk

    monkeypatch.setattr(History, "chunk", losing)
    assert await rig.last("A") == 1


async def test_a_stored_message_is_compared_by_subject_and_payload(rig):
    source = SourceHeaders("t", "d", "A")
    message = source.event(1, "a", TIME, b'{"n":1}')
    await rig.jetstream.publish("events.t.d.a", b'{"n":1}')
    same = rig.stored.same
    assert await within(same(message, 1))
    assert not await within(same(source.event(1, "a", TIME, b'{"n":2}'), 1))
    assert not await within(same(source.event(1, "b", TIME, b'{"n":1}'), 1))
    assert await within(same(message, 99)), "gone: nobody can tell"


@given(st.text(max_size=40))
def test_an_id_of_another_device_is_not_parsed_as_one_of_this_device(text):
    assert parse_id(text, "t", "d") is None or text.startswith("t:d:")
