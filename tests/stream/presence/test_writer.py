"""The writer of presence facts against a real nats-server: batches, lost answers, outages."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter

import pytest

from gateway.session.presence import Fact
from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.link import NatsLink
from gateway.stream.presence import writer as presence_writer
from gateway.stream.presence.buffer import FactBuffer
from gateway.stream.presence.writer import PresenceWriter, message_of
from gateway.stream.provisioning.provision import (
    StreamSettings,
    provision,
    server_version,
    stream_configs,
)
from support.presence import presence, truth_of
from support.servers import nats_server
from support.waiting import eventually, within


def fact(number, online=True, fence=1):
    return Fact("default", f"veh-{number}", online, "s", fence, "connected", "n1", time.time())


class Rig:
    """A writer over a link to one server; `deaf` answers are lost."""

    def __init__(self, url, *, linger_s=0.0, facts_max=10_000):
        self.deaf = 0
        self.lags = []
        self.batches = []
        self.link = NatsLink(
            NatsAddress((url,), reconnect_wait_s=0.01, reconnect_wait_max_s=0.1),
            name="test",
            on_up=self.on_up,
            on_ready=lambda _client: None,
            on_down=lambda: None,
            on_failure=lambda _exc: None,
            rng=random.Random(1),
        )
        self.buffer = FactBuffer(linger_s=linger_s, facts_max=facts_max)
        self.writer = PresenceWriter(
            self.link,
            self.buffer,
            node="abcd",
            facts_per_s=100_000,
            on_stored=self.on_stored,
            rng=random.Random(2),
            clock=time.monotonic,
            now=time.time,
        )
        heard = self.writer._answers._on_reply
        self.writer._answers._on_reply = lambda *reply: self.hear(heard, reply)

    def hear(self, heard, reply):
        if self.deaf:
            self.deaf -= 1
        else:
            heard(*reply)

    def on_stored(self, facts, lag_s):
        self.batches.append(facts)
        self.lags.append(lag_s)

    async def on_up(self, client):
        settings = StreamSettings(1, 0, 0, 120, deny_delete=False, deny_purge=False)
        await provision(client, stream_configs({"PRESENCE": settings}, server_version(client)))


@contextlib.asynccontextmanager
async def rig_on(url, **options):
    rig = Rig(url, **options)
    rig.link.start()
    running = asyncio.create_task(rig.writer.run())
    try:
        yield rig
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await rig.link.stop()


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path / "nats") as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(presence_writer, "_ANSWER_S", 0.3)
    monkeypatch.setattr(presence_writer, "_RETRY_MAX_S", 0.2)


async def test_facts_are_stored_in_batches_and_in_order(server):
    async with rig_on(server.url) as rig:
        for number in range(1_200):
            rig.writer.add(fact(number))
            rig.writer.add(fact(number, online=False), prompt=True)
        await within(rig.writer.stored_so_far())
        facts = await presence(server.url)
    assert len(facts) == 2_400
    assert sum(rig.batches) == 2_400
    assert len(rig.batches) < 20
    assert [f["online"] for f in facts if f["device"] == "veh-7"] == [True, False]
    assert max(rig.lags) < 30


async def test_the_loop_turns_while_a_full_batch_is_made(server, monkeypatch):
    made, turns, loop = Counter(), itertools.count(), asyncio.get_running_loop()
    turn = 0

    def next_turn():
        nonlocal turn
        turn = next(turns)
        if made.total() < 500:
            loop.call_soon(next_turn)

    def counted(each):
        made[turn] += 1
        return message_of(each)

    monkeypatch.setattr(presence_writer, "message_of", counted)
    async with rig_on(server.url) as rig:
        await within(rig.link.wait_up())
        for number in range(500):
            rig.writer.add(fact(number))
        next_turn()
        await within(rig.writer.stored_so_far())
    assert made.total() == 500
    assert max(made.values()) <= 100


@pytest.mark.parametrize("count", [1, 50])
async def test_a_batch_whose_answer_is_lost_is_sent_again_and_stored_once(server, count):
    async with rig_on(server.url) as rig:
        await within(rig.link.wait_up())
        rig.deaf = 1
        for number in range(count):
            rig.writer.add(fact(number))
        await within(rig.writer.stored_so_far())
        assert rig.deaf == 0
        assert len(await presence(server.url)) == count


async def test_a_batch_in_which_one_fact_is_stored_already_stores_the_others(server):
    async with rig_on(server.url) as rig:
        rig.writer.add(fact(3))
        await within(rig.writer.stored_so_far())
        for number in range(10):
            rig.writer.add(fact(number))
        await within(rig.writer.stored_so_far())
        facts = await presence(server.url)
    assert sorted(f["device"] for f in facts) == [f"veh-{number}" for number in range(10)]


async def test_while_nats_is_away_the_last_fact_of_each_device_is_kept(server):
    async with rig_on(server.url, facts_max=40) as rig:
        await within(rig.link.wait_up())
        server.kill()
        await eventually(lambda: rig.link.client is None)
        rig.writer.add(fact("first"))  # this one is in flight
        await eventually(lambda: not len(rig.buffer))
        for fence in range(1, 30):
            for number in range(20):
                rig.writer.add(fact(number, fence=fence))
                rig.writer.add(fact(number, online=False, fence=fence), prompt=True)
        assert len(rig.buffer) <= 40
        assert rig.buffer.dropped == 0
        await asyncio.to_thread(server.start)
        await within(rig.writer.stored_so_far())
        truth = truth_of(await presence(server.url))
    assert truth.keys() == {"veh-first"} | {f"veh-{number}" for number in range(20)}
    assert all(
        (f["fence"], f["online"]) == (29, False) for name, f in truth.items() if name != "veh-first"
    )


async def test_at_a_stop_what_lingers_is_stored_at_once(server):
    async with rig_on(server.url, linger_s=3_600) as rig:
        rig.writer.add(fact(1))
        await within(rig.writer.flush())
        assert len(await presence(server.url)) == 1


def test_the_message_of_a_fact_has_its_id():
    message = message_of(fact(1, fence=7))
    assert message.subject == b"presence.default.veh-1"
    assert b"Nats-Msg-Id:default:veh-1:7:online\r\n" in message.headers
