"""Deadlines and replaced connections, with a clock and transports of the test."""

import asyncio

import pytest

from gateway.ops.guard import HEAD_BYTES_MAX, ConnectionGuard

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Clock:
    """`call_later` of a loop, in virtual time."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def call_later(self, seconds, call):
        timer = asyncio.TimerHandle(self.now + seconds, call, (), self)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.when() <= self.now]
        for timer in due:
            self.timers.remove(timer)
            if not timer.cancelled():
                timer._run()

    def get_debug(self):
        return False

    def _timer_handle_cancelled(self, _timer):
        pass


class Inner(asyncio.Protocol):
    def __init__(self):
        self.got = b""

    def data_received(self, data):
        self.got += data


class Transport:
    def __init__(self):
        self.aborted = False

    def abort(self):
        self.aborted = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guard(clock):
    return ConnectionGuard(
        Inner, loop=clock, connections_max=3, head_timeout_s=5.0, write_timeout_s=10.0
    )


def connect(guard):
    connection, transport = guard.connect(), Transport()
    connection.connection_made(transport)
    return connection, transport


def test_a_head_that_does_not_come_to_its_end_is_cut_off(guard, clock):
    connection, transport = connect(guard)
    clock.advance(4)
    connection.data_received(HEAD[:-1])
    clock.advance(0.9)
    assert not transport.aborted
    clock.advance(0.2)
    assert transport.aborted
    assert len(guard) == 0


def test_a_head_that_is_complete_may_stay_in_any_pieces(guard, clock):
    for size in (1, 2, 3, len(HEAD)):
        connection, transport = connect(guard)
        for start in range(0, len(HEAD), size):
            connection.data_received(HEAD[start : start + size])
        clock.advance(60)
        assert not transport.aborted
        assert connection._inner.got == HEAD
        connection.connection_lost(None)


def test_a_head_has_a_size(guard):
    connection, transport = connect(guard)
    connection.data_received(b"x" * HEAD_BYTES_MAX)
    assert not transport.aborted
    connection.data_received(b"x")
    assert transport.aborted
    whole, transport = connect(guard)
    whole.data_received(b"x" * (HEAD_BYTES_MAX + 1) + b"\r\n\r\n")
    assert transport.aborted
    body, transport = connect(guard)
    body.data_received(HEAD + b"x" * HEAD_BYTES_MAX)
    body.data_received(b"x" * HEAD_BYTES_MAX)
    assert not transport.aborted


def test_who_does_not_read_an_answer_is_cut_off(guard, clock):
    connection, transport = connect(guard)
    connection.data_received(HEAD)
    connection.pause_writing()
    clock.advance(9)
    connection.resume_writing()
    connection.pause_writing()
    clock.advance(9)
    assert not transport.aborted
    clock.advance(2)
    assert transport.aborted


def test_a_new_connection_displaces_the_one_silent_for_longest(guard):
    pairs = [connect(guard) for _ in range(3)]
    pairs[0][0].data_received(HEAD)
    _, newest = connect(guard)
    assert [transport.aborted for _, transport in pairs] == [False, True, False]
    assert not newest.aborted
    assert len(guard) == 3


def test_one_that_has_ended_is_forgotten(guard, clock):
    connection, transport = connect(guard)
    connection.connection_lost(None)
    connection.data_received(HEAD)
    clock.advance(60)
    assert len(guard) == 0
    assert not transport.aborted
