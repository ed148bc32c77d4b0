"""Facts that are written in one moment share a batch, and each has its own answer."""

import asyncio

import pytest

from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.lanes.encoding import publication
from gateway.stream.names import COMMANDS
from gateway.stream.queue.batches import FactBatches
from support.waiting import eventually


def message(number):
    return publication(COMMANDS, b"commands.status.default.veh-1.c-%d" % number, b"", b"{}")


class Stream:
    """Stores what it is given while its gate is open, and notes how it came."""

    def __init__(self):
        self.now = 0.0
        self.takes_s = 0.0
        self.stored = 0
        self.writes = []
        self.refuses = None
        self.conflicts = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def _write(self, messages):
        self.writes.append([each.subject.decode().rpartition(".")[2] for each in messages])
        await self.gate.wait()
        self.now += self.takes_s
        self.stored += len(messages)
        return self.stored

    async def append_one(self, message):
        if message.subject in self.conflicts:
            raise FactConflict
        return await self._write([message])

    async def append_all(self, messages):
        if self.refuses is not None:
            raise self.refuses
        if self.conflicts & {each.subject for each in messages}:
            return None
        return await self._write(messages)


@pytest.fixture
async def stream():
    return Stream()


@pytest.fixture
async def batches(stream):
    return FactBatches(stream, lambda: stream.now)


def write(batches, numbers):
    return [asyncio.create_task(batches.write(message(number))) for number in numbers]


async def test_what_comes_while_a_batch_is_in_flight_is_the_next_batch(stream, batches):
    stream.gate.clear()
    first = write(batches, [0])
    await eventually(lambda: stream.writes)
    later = write(batches, [1, 2, 3])
    await asyncio.sleep(0)
    stream.gate.set()
    assert await asyncio.gather(*first, *later) == [1, 2, 3, 4]
    assert stream.writes == [["c-0"], ["c-1", "c-2", "c-3"]]


async def test_a_batch_holds_no_more_than_a_hundred(stream, batches):
    assert await asyncio.gather(*write(batches, range(250))) == list(range(1, 251))
    assert [len(each) for each in stream.writes] == [100, 100, 50]


async def test_a_batch_that_is_refused_is_written_one_by_one(stream, batches):
    stream.conflicts = {message(1).subject}
    found = await asyncio.gather(*write(batches, [0, 1, 2]), return_exceptions=True)
    assert isinstance(found[1], FactConflict)
    assert stream.writes == [["c-0"], ["c-2"]]
    assert (found[0], found[2]) == (1, 2)


async def test_a_batch_without_an_answer_is_not_known_to_be_stored(stream, batches):
    stream.refuses = StoreAway("no answer")
    found = await asyncio.gather(*write(batches, [0, 1]), return_exceptions=True)
    assert [type(each) for each in found] == [StoreAway, StoreAway]
    stream.refuses = None
    assert await batches.write(message(2)) == 1


async def test_a_rest_follows_that_grows_with_the_time_that_storing_takes(
    stream, batches, monkeypatch
):
    slept = []
    sleep = asyncio.sleep

    async def note(delay_s):
        slept.append(delay_s)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    for stream.takes_s in (0.001, 1.0, 0.0):
        await batches.write(message(0))
    assert slept == pytest.approx([0.0, 0.003, 0.02])


async def test_the_others_are_stored_after_a_writer_was_cancelled(stream, batches):
    stream.gate.clear()
    first = write(batches, [0])
    await eventually(lambda: stream.writes)
    gone, stays = write(batches, [1, 2])
    await asyncio.sleep(0)
    gone.cancel()
    stream.gate.set()
    assert await asyncio.gather(*first, stays) == [1, 2]
    assert stream.writes == [["c-0"], ["c-2"]]


async def test_a_batch_whose_writer_was_cancelled_is_not_known_to_be_stored(stream, batches):
    stream.gate.clear()
    writer, other = write(batches, [0, 1])
    await eventually(lambda: stream.writes)
    writer.cancel()
    with pytest.raises(StoreAway, match="cancelled"):
        await other
    stream.gate.set()
    assert await batches.write(message(2)) == 1
