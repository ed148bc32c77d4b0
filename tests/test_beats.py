"""Sleeps that end together."""

import asyncio

import pytest

from gateway import beats
from gateway.beats import Wake, beat, beat_in_s


@pytest.mark.parametrize(
    ("now_s", "wait_s"),
    [
        (10.0, 1.0),  # on a beat: the next one
        (10.25, 0.75),
        (10.49, 0.51),
        (10.5, 1.5),  # a beat less than half a period ahead is passed over
        (10.999, 1.001),  # the timer was early
        (11.4, 0.6),  # late
    ],
)
def test_the_next_beat_is_half_a_period_away_at_least(now_s, wait_s):
    assert beat_in_s(now_s, 1.0, 0.0) == pytest.approx(wait_s)
    assert beat_in_s(now_s + 0.3, 1.0, 0.3) == pytest.approx(wait_s)


def test_long_periods_share_the_beats_of_short_ones():
    for start_s in (0.0, 3.3, 12_345.678):
        short, long = set(), set()
        for every_s, found in ((0.25, short), (1.0, long)):
            now_s = start_s
            while now_s < start_s + (8 if found is short else 5):
                now_s += beat_in_s(now_s, every_s, 0.123)
                found.add(round(now_s, 6))
        assert long < short


async def test_a_beat_says_when_it_was_due(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(beats.asyncio, "sleep", sleep)
    monkeypatch.setattr(beats, "SHIFT_S", 0.0)
    began = asyncio.get_running_loop().time()
    due = await beat(0.5)
    assert due % 0.5 == pytest.approx(0.0, abs=1e-6) or due % 0.5 == pytest.approx(0.5)
    assert began < due == pytest.approx(began + slept[0], abs=0.4)


async def test_a_wake_ends_the_sleep_that_goes_on_or_the_next_one():
    wake = Wake()
    sleeping = asyncio.create_task(wake.beat(1_000.0))
    await asyncio.sleep(0)
    assert not sleeping.done()
    wake.set()
    wake.set()
    assert await asyncio.wait_for(sleeping, 5.0)
    assert await asyncio.wait_for(wake.beat(1_000.0), 5.0)
    assert wake.is_set()


async def test_without_a_wake_the_sleep_ends_with_the_beat():
    wake = Wake()
    wake.set()
    wake.clear()
    assert not await asyncio.wait_for(wake.beat(0.001), 5.0)


async def test_a_sleep_that_is_cancelled_leaves_nothing_to_end():
    wake = Wake()
    sleeping = asyncio.create_task(wake.beat(1_000.0))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.wait({sleeping})
    wake.set()
    assert sleeping.cancelled()
    assert wake.is_set()
