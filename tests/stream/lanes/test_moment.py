"""The next moment of a lane, on a loop whose time the test moves."""

import asyncio

import pytest

from gateway.stream.lanes.moment import NextMoment
from support.loops import DrivenLoop


@pytest.fixture
def loop(monkeypatch):
    loop = DrivenLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


@pytest.fixture
def acted(loop):
    return []


@pytest.fixture
def moment(loop, acted):
    return NextMoment(lambda: acted.append(loop.now))


def test_a_lane_acts_once_when_the_moment_comes(loop, moment, acted):
    moment.set_after(2.0)
    loop.until(1.9)
    assert acted == []
    assert moment.is_set
    loop.until(10.0)
    assert acted == [2.0]
    assert not moment.is_set


def test_a_moment_that_is_forgotten_does_not_come(loop, moment, acted):
    moment.set_after(2.0)
    moment.forget()
    assert not moment.is_set
    loop.until(10.0)
    assert acted == []


def test_a_later_moment_replaces_the_one_before_on_the_same_timer(loop, moment, acted):
    for _ in range(100):
        moment.set_after(2.0)
        loop.now += 0.01
        moment.forget()
    moment.set_after(2.0)
    assert loop.made == 1, "an answer in time makes no timer"
    loop.until(2.9)
    assert acted == []
    loop.until(10.0)
    assert acted == [pytest.approx(3.0)]
    assert loop.waiting == []


def test_an_earlier_moment_comes_at_its_time(loop, moment, acted):
    moment.set_after(10.0)
    moment.set_after(1.0)
    loop.until(20.0)
    assert acted == [1.0]
    assert loop.waiting == []


def test_soon_is_when_the_turn_is_over(loop, moment, acted):
    moment.set_soon()
    assert acted == []
    loop.turn()
    assert acted == [0.0]


def test_soon_can_be_forgotten_and_set_again_in_one_turn(loop, moment, acted):
    moment.set_soon()
    moment.forget()
    loop.turn()
    assert acted == []
    moment.set_soon()
    moment.forget()
    moment.set_soon()
    loop.turn()
    assert acted == [0.0], "once"


def test_what_was_soon_and_is_now_later_waits(loop, moment, acted):
    moment.set_soon()
    moment.set_after(5.0)
    loop.turn()
    assert acted == []
    loop.until(5.0)
    assert acted == [5.0]


def test_closed_it_leaves_no_timer(loop, moment, acted):
    moment.set_after(5.0)
    moment.set_soon()
    moment.close()
    loop.turn()
    assert loop.waiting == []
    loop.until(10.0)
    assert acted == []


def test_a_turn_that_counts_as_over_is_the_moment_once(loop, moment, acted):
    moment.turn_over()
    assert acted == [], "none is set"
    moment.set_soon()
    moment.turn_over()
    assert len(acted) == 1
    loop.until(1.0)
    assert len(acted) == 1


def test_a_turn_that_counts_as_over_is_not_the_end_of_a_delay(loop, moment, acted):
    moment.set_after(2.0)
    moment.turn_over()
    assert acted == []
