"""Batches that rules share, over a connection that is played by the test."""

import asyncio
import re

import pytest

from gateway.consumers.delivery import batch_writer
from gateway.consumers.delivery.batch_writer import BATCH_MESSAGES_MAX, BatchWriter, Outcome, Parcel
from gateway.consumers.delivery.derived import Deriver
from gateway.consumers.errors import NotOwner
from gateway.events.event import Event
from gateway.events.rules import Rule
from support.waiting import eventually, within

TOO_LARGE = 10054
NO_SPACE = 10077


class Server:
    """A client whose writes are kept, and whose answers the test gives."""

    def __init__(self):
        self.written = []
        self.up = True

    def new_inbox(self):
        return "_INBOX.x"

    async def subscribe_direct(self, _subject, handler):
        self.handler = handler

    async def flush(self):
        pass

    def write(self, data):
        self.written.append(data)
        return self.up

    @property
    def commits(self):
        """Reply subject and ids of each publish that wants an answer; ids of its batch come first.

        A batch that is never committed does not appear.
        """
        batches, found = {}, []
        for block in b"".join(self.written).split(b"HPUB ")[1:]:
            event = re.search(rb"Nats-Msg-Id:\S+/(\S+)", block)[1].decode()
            batch = re.search(rb"Nats-Batch-Id:(\S+)", block)
            reply = re.search(rb"_INBOX\.x\.\d+", block.partition(b"\r\n")[0])
            ids = batches.setdefault(batch[1], []) if batch else []
            ids.append(event)
            if reply:
                found.append((reply[0].decode(), ids))
        return found

    def answer(self, seq):
        reply, ids = self.commits[-1]
        body = b'{"stream":"S","seq":%d,"count":%d}' % (seq, len(ids))
        self.handler(reply, body, None)

    def refuse(self, code):
        body = b'{"error":{"err_code":%d,"description":"no"}}' % code
        self.handler(self.commits[-1][0], body, None)


@pytest.fixture
async def server():
    return Server()


@pytest.fixture
async def writer(server):
    found = BatchWriter(server, "S")
    await found.open()
    return found


def free():
    pass


def parcel(name, count=2, guard=free, first=1):
    when = {"type": ["battery.low"]}
    rule = Rule.model_validate({"name": name, "when": when, "to": "nats:alerts.{device}"})
    deriver = Deriver(rule, rule.to)
    events = [
        Event("events.t.d.battery.low", b"NATS/1.0\r\nce-id:o:1\r\n\r\n", b"{}", seq, 0)
        for seq in range(first, first + count)
    ]
    messages = [deriver.message(event) for event in events]
    return Parcel(messages, sum(each.size for each in messages), guard)


async def turn():
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_parcels_of_one_turn_share_a_batch_and_each_knows_its_last_sequence(server, writer):
    low, high = parcel("low"), parcel("high", 3)
    writer.submit(low)
    writer.submit(high)
    await turn()
    assert [ids for _, ids in server.commits] == [["low:1", "low:2", "high:1", "high:2", "high:3"]]
    server.answer(105)
    assert await low.outcome == Outcome(102)
    assert await high.outcome == Outcome(105)


async def test_what_comes_while_a_batch_is_committed_is_sent_and_committed_behind_it(
    server, writer
):
    first, second, third = parcel("low"), parcel("high"), parcel("low", first=3)
    writer.submit(first)
    await turn()
    writer.submit(second)
    writer.submit(third)
    await turn()
    assert len(server.commits) == 1
    assert b"high:2" in b"".join(server.written)
    server.answer(2)
    await turn()
    assert server.commits[1][1] == ["high:1", "high:2", "low:3", "low:4"]
    server.answer(6)
    assert (await second.outcome, await third.outcome) == (Outcome(4), Outcome(6))


async def test_a_single_message_needs_no_batch(server, writer):
    only = parcel("low", 1)
    writer.submit(only)
    await turn()
    assert b"Nats-Batch-Id" not in b"".join(server.written)
    server.answer(7)
    assert await only.outcome == Outcome(7)


async def test_a_batch_is_bounded_and_at_most_two_are_open(server, writer):
    parcels = [parcel(f"r{number}", BATCH_MESSAGES_MAX // 2) for number in range(7)]
    for each in parcels:
        writer.submit(each)
    await turn()
    sent = b"".join(server.written)
    assert len(set(re.findall(rb"Nats-Batch-Id:(\S+)", sent))) == 2
    assert len(server.commits[0][1]) == BATCH_MESSAGES_MAX
    assert b"r3:1" in sent
    assert b"r4:1" not in sent


@pytest.mark.parametrize(("code", "outcome"), [(TOO_LARGE, Outcome()), (NO_SPACE, None)])
async def test_a_refused_batch_gives_back_all_that_waits_in_it_and_behind_it(
    server, writer, code, outcome
):
    parcels = [parcel(f"r{number}", BATCH_MESSAGES_MAX) for number in range(3)]
    for each in parcels:
        writer.submit(each)
    await turn()
    server.refuse(code)
    await turn()
    for each in parcels:
        found = await each.outcome
        assert found == outcome or (outcome is None and "the target's stream says" in found.away)
        assert not each.under_way
    assert len(server.commits) == 1  # the batch behind it is never committed
    after = parcel("r0")
    writer.submit(after)
    await turn()
    assert server.commits[-1][1] == ["r0:1", "r0:2"]


async def test_nothing_is_committed_for_a_rule_that_has_lost_its_lease(server, writer):
    def lost():
        raise NotOwner("another process took over")

    low, high = parcel("low"), parcel("high", guard=lost)
    writer.submit(low)
    writer.submit(high)
    await turn()
    assert server.commits == []
    assert (await low.outcome, await high.outcome) == (Outcome(), Outcome())


async def test_what_is_withdrawn_is_not_committed_and_the_others_are(server, writer):
    first, gone, kept = parcel("low"), parcel("high"), parcel("mid")
    writer.submit(first)
    await turn()
    writer.submit(gone)
    writer.submit(kept)
    await turn()
    writer.withdraw([gone])
    server.answer(2)
    await turn()
    assert server.commits[1][1] == ["mid:1", "mid:2"]
    assert gone.outcome.cancelled()


async def test_without_an_answer_nobody_knows(server, writer, monkeypatch):
    monkeypatch.setattr(batch_writer, "ANSWER_S", 0.0)
    low, high = parcel("low"), parcel("high")
    writer.submit(low)
    await turn()
    writer.submit(high)
    assert "no answer" in (await within(low.outcome)).away
    await eventually(high.outcome.done)


async def test_a_lost_connection_is_no_answer(server, writer):
    server.up = False
    low = parcel("low")
    writer.submit(low)
    await turn()
    assert "connection" in (await low.outcome).away


async def test_an_answer_is_waited_for(server, writer):
    await within(writer.answered())
    writer.submit(parcel("low"))
    await turn()
    waiting = asyncio.create_task(writer.answered())
    await turn()
    assert not waiting.done()
    server.answer(2)
    await within(waiting)
