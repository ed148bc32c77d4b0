"""What a reader holds: its order, its bounds, and how long it waits for more."""

import asyncio

import pytest

from gateway.stream.reading.read_buffer import ReadBuffer
from support.waiting import within


def filled(*sizes, room_messages=8, room_bytes=1_000):
    buffer = ReadBuffer(room_messages=room_messages, room_bytes=room_bytes)
    for number, size in enumerate(sizes):
        buffer.add(number, size)
    return buffer


def test_room_is_asked_for_by_the_quarter():
    buffer = ReadBuffer(room_messages=8, room_bytes=1_000)
    assert (buffer.room(0), buffer.room(3), buffer.room(6)) == (8, 5, 2)
    assert buffer.room(7) == 0, "one message is less than a quarter of the room"
    assert ReadBuffer(room_messages=1, room_bytes=1).room(0) == 1


async def test_what_is_held_takes_room_until_it_is_taken():
    buffer = filled(10, 10, 10)
    assert (len(buffer), buffer.room(0)) == (3, 5)
    buffer.take(2, 1_000)
    assert (len(buffer), buffer.room(0)) == (1, 7)


async def test_there_is_no_room_while_the_bytes_are_used():
    buffer = filled(600, 400)
    assert buffer.room(0) == 0
    buffer.take(1, 1_000)
    assert buffer.room(0) == 7


async def test_items_are_taken_in_order_within_both_bounds():
    buffer = filled(10, 20, 30, 40)
    assert buffer.take(3, 30) == [0, 1]
    assert buffer.take(1, 1_000) == [2]
    assert buffer.arrived.is_set()
    assert buffer.take(9, 1_000) == [3]
    assert not buffer.arrived.is_set()
    assert buffer.take(9, 1_000) == []


async def test_an_item_over_the_bytes_is_taken_alone():
    assert filled(500, 1).take(9, 100) == [0]


@pytest.mark.parametrize(
    ("sizes", "messages_max", "bytes_max"),
    [((1, 1, 1), 3, 1_000), ((1, 50), 9, 50), ((1,), 1, 1_000)],
)
async def test_a_wait_ends_at_once_if_enough_is_there(sizes, messages_max, bytes_max):
    await within(filled(*sizes).wait(messages_max, bytes_max, linger_s=3_600.0))


async def test_a_wait_ends_when_enough_has_come():
    buffer = filled(1)
    waiting = asyncio.create_task(buffer.wait(3, 1_000, linger_s=3_600.0))
    await asyncio.sleep(0)
    buffer.add("second", 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.add("third", 1)
    await within(waiting)


async def test_a_wait_ends_when_the_room_is_full_although_more_was_wanted():
    buffer = filled(1, room_bytes=100)
    waiting = asyncio.create_task(buffer.wait(9, 1_000, linger_s=3_600.0))
    await asyncio.sleep(0)
    buffer.add("large", 99)
    assert buffer.room(0) == 0
    buffer.add("last", 900)
    await within(waiting)


async def test_without_linger_a_wait_ends_with_the_first_item():
    buffer = ReadBuffer(room_messages=8, room_bytes=1_000)
    waiting = asyncio.create_task(buffer.wait(9, 1_000, linger_s=0.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.add("only", 1)
    await within(waiting)


async def test_a_wait_ends_when_the_first_item_has_lingered():
    buffer = filled(1)
    await within(buffer.wait(9, 1_000, linger_s=0.01))
    assert buffer.take(9, 1_000) == [0]
