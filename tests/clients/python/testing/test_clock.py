import asyncio

import pytest

from support.waiting import within
from tidegate.testing import FakeClock


async def test_time_stands_still_until_it_is_moved_and_wakes_sleepers_in_order():
    clock, woken = FakeClock(start_s=10.0), []

    async def sleep(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    sleeping = [asyncio.create_task(sleep(seconds)) for seconds in (3.0, 1.0, 2.0)]
    await asyncio.sleep(0)
    assert (clock.sleeping, clock.monotonic()) == (3, 10.0)
    clock.advance(2.5)
    await asyncio.wait(sleeping[1:])
    assert [seconds for seconds, _at in woken] == [1.0, 2.0]
    assert clock.monotonic() == 12.5
    clock.advance(0.5)
    await asyncio.wait(sleeping)
    assert clock.sleeping == 0


async def test_it_moves_to_the_next_sleeper_and_says_how_far():
    clock = FakeClock()
    sleeping = asyncio.create_task(clock.sleep_until(clock.monotonic() + 4.0))
    assert await within(clock.advance_to_next()) == 4.0
    await within(sleeping)
    assert clock.waits == [4.0]
    cancelled = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    later = asyncio.create_task(clock.sleep(7.0))
    assert await within(clock.advance_to_next()) == 7.0, "a cancelled sleep is no sleeper"
    await within(later)


async def test_a_sleep_of_no_seconds_takes_no_time():
    clock = FakeClock()
    await within(clock.sleep(0))
    await within(clock.sleep(-1))
    assert clock.monotonic() == 1_000.0


async def test_it_jumps_by_itself_once_every_task_waits():
    clock, order = FakeClock(autojump=True), []

    async def busy():
        for _ in range(50):
            await asyncio.sleep(0)
        order.append(("busy", clock.monotonic()))

    async def sleeper():
        await clock.sleep(3_600.0)
        order.append(("slept", clock.monotonic()))

    await within(asyncio.gather(sleeper(), busy()))
    assert order == [("busy", 1_000.0), ("slept", 4_600.0)]


async def test_a_jumping_clock_stops_after_a_week(caplog):
    clock = FakeClock(autojump=True)

    async def tick():
        while True:
            await clock.sleep(86_400.0)

    ticking = asyncio.create_task(tick())
    for _ in range(3_000):
        await asyncio.sleep(0)
    ticking.cancel()
    await asyncio.wait({ticking})
    assert "the fake clock stops" in caplog.text
    assert clock.monotonic() == 1_000.0 + 7 * 86_400


@pytest.mark.parametrize("autojump", [False, True])
async def test_a_limit_ends_its_block_after_its_time(autojump):
    clock = FakeClock(autojump=autojump)

    async def limited():
        async with clock.limit(90.0):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(limited())
    if not autojump:
        await asyncio.sleep(0)
        clock.advance(89.9)
        await asyncio.sleep(0)
        assert not waiting.done()
        clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await within(waiting)
    assert clock.monotonic() == 1_090.0
    assert clock.sleeping == 0


async def test_a_limit_that_is_not_reached_leaves_nothing_behind():
    clock = FakeClock()
    async with clock.limit(5.0):
        await asyncio.sleep(0)
    assert clock.sleeping == 0


async def test_a_limit_that_is_due_when_its_block_ends_does_no_harm():
    clock, problems = FakeClock(), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, said: problems.append(said))
    async with clock.limit(5.0):
        clock.advance(5.0)
    await asyncio.sleep(0)
    assert problems == []


async def test_the_tasks_that_have_not_ended_are_named():
    clock = FakeClock(autojump=True)
    never = asyncio.create_task(asyncio.Event().wait())
    soon = asyncio.create_task(clock.sleep(1.0))
    assert await within(clock.ended([never, soon], 5.0)) == {never}
    assert clock.monotonic() == 1_005.0
    never.cancel()
    assert await within(clock.ended([never, soon], 5.0)) == set()
    assert await within(clock.ended([], 5.0)) == set()


def test_the_wall_clock_and_the_time_since_boot_follow_it():
    clock = FakeClock(start_s=5.0, wall_s=1_800_000_000.0)
    assert (clock.wall(), clock.uptime().ms) == (1_800_000_000.0, 5_000)
    boot = clock.uptime().boot
    clock.now_s += 2.0
    assert (clock.wall(), clock.uptime()) == (1_800_000_002.0, (boot, 7_000))
    clock.set_wall(0.0)
    assert clock.wall() == 0.0
