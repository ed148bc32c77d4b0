import asyncio

import pytest

from support.scripted import told
from support.waiting import within
from tidegate.board import Board
from tidegate.errors import CredentialRefused, NotOpen


async def test_waiting_ends_when_the_condition_holds():
    board = Board()
    board.open = True
    seen = []
    waiting = asyncio.create_task(board.until(lambda: seen))
    await asyncio.sleep(0)
    board.changed()
    await asyncio.sleep(0)
    assert not waiting.done()
    seen.append(1)
    board.changed()
    await within(waiting)


async def test_every_wait_ends_with_the_device_and_raises_its_reason():
    board = Board()
    board.open = True
    waits = [asyncio.create_task(board.until(lambda: False)) for _ in range(3)]
    await asyncio.sleep(0)
    board.end(CredentialRefused("no"))
    board.end(CredentialRefused("later"))
    for wait in waits:
        assert str(await told(wait)) == "no"
    with pytest.raises(CredentialRefused):
        board.check_open()


async def test_before_its_start_and_after_its_end_the_board_is_not_open():
    board = Board()
    with pytest.raises(NotOpen):
        await within(board.until(lambda: False))
    board.open = True
    board.check_open()
    board.end(None)
    with pytest.raises(NotOpen):
        await within(board.until(lambda: False))


async def test_no_change_is_missed_between_looking_and_waiting():
    board = Board()
    version = board.version
    board.changed()
    await within(board.changed_since(version))


async def test_a_cancelled_wait_harms_no_other():
    board = Board()
    board.open = True
    waiting = asyncio.create_task(board.until(lambda: False))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    board.changed()
