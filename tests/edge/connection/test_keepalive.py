"""Pings: when the peer is asked, and when it is given up."""

import pytest

from gateway.edge.connection.keepalive import Keepalive, Step

LIMITS = {"interval_s": 30.0, "timeout_s": 20.0}


def test_a_peer_that_answers_is_asked_every_interval():
    keepalive = Keepalive(0.0)
    for _ in range(3):
        assert keepalive.step(**LIMITS, readable=True) == (Step.PING, 20.0)
        keepalive.heard = True
        assert keepalive.step(**LIMITS, readable=True) == (Step.WAIT, 10.0)


def test_a_silent_peer_is_half_open():
    keepalive = Keepalive(0.0)
    keepalive.step(**LIMITS, readable=True)
    assert keepalive.step(**LIMITS, readable=True)[0] is Step.HALF_OPEN


def test_a_peer_that_is_not_read_is_not_blamed_for_silence():
    keepalive = Keepalive(0.0)
    keepalive.step(**LIMITS, readable=True)
    assert keepalive.step(**LIMITS, readable=False)[0] is Step.WAIT


def test_after_other_business_the_next_step_is_a_ping():
    keepalive = Keepalive(0.0)
    keepalive.step(**LIMITS, readable=True)
    keepalive.begin_again()
    assert keepalive.step(**LIMITS, readable=True)[0] is Step.PING


@pytest.mark.parametrize("timeout_s", [30.0, 40.0])
def test_a_timeout_beyond_the_interval_asks_again_at_once(timeout_s):
    keepalive = Keepalive(0.0)
    keepalive.step(interval_s=30.0, timeout_s=timeout_s, readable=True)
    keepalive.heard = True
    assert keepalive.step(interval_s=30.0, timeout_s=timeout_s, readable=True) == (Step.WAIT, 0.0)
