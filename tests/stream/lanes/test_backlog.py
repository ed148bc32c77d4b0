import asyncio

from gateway.stream.lanes.backlog import Backlog
from support.waiting import within


async def test_a_node_is_full_in_messages_or_in_bytes():
    backlog = Backlog(messages_max=4, bytes_max=100)
    assert (backlog.full, backlog.share()) == (False, 0.0)
    backlog.add(4, 40)
    assert (backlog.full, backlog.share()) == (True, 1.0)
    backlog.release(3, 30)
    assert (backlog.full, backlog.share()) == (False, 0.25)
    backlog.grow(90)
    assert backlog.full


async def test_a_waiter_is_called_once_when_a_quarter_is_free():
    backlog = Backlog(messages_max=4, bytes_max=1_000)
    backlog.add(5, 5)
    calls = []
    backlog.when_drained(lambda: calls.append(backlog.messages))
    for _ in range(4):
        backlog.release(1, 1)
    assert calls == [3]


async def test_a_drain_waits_until_everything_is_settled():
    backlog = Backlog(messages_max=4, bytes_max=1_000)
    await within(backlog.wait_empty())
    backlog.add(1, 1)
    waiting = asyncio.create_task(backlog.wait_empty())
    await asyncio.sleep(0)
    assert not waiting.done()
    backlog.release(1, 1)
    await within(waiting)
