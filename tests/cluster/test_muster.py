"""How many nodes share R while Redis comes back."""

import pytest

from gateway.cluster.muster import Muster

TIMEOUT_S = 5.0


@pytest.fixture
def muster():
    muster = Muster(TIMEOUT_S)
    muster.heard(3, 0.0)
    return muster


def test_a_fleet_grows_and_shrinks_as_it_is_heard(muster):
    assert (muster.nodes, muster.complete) == (3, True)
    muster.heard(2, 1.0)
    assert (muster.nodes, muster.complete) == (2, True)


def test_everybody_keeps_its_share_until_all_are_back(muster):
    muster.lost()
    muster.heard(1, 100.0)
    assert (muster.nodes, muster.complete) == (3, False)
    muster.heard(2, 101.0)
    assert (muster.nodes, muster.complete) == (3, False)
    muster.heard(4, 102.0)
    assert (muster.nodes, muster.complete) == (4, True)


def test_who_stays_silent_is_gone(muster):
    muster.lost()
    muster.heard(2, 100.0)
    muster.heard(2, 100.0 + TIMEOUT_S)
    assert (muster.nodes, muster.complete) == (2, True)


def test_a_redis_that_goes_away_again_leaves_nobody_with_more_than_its_share(muster):
    muster.lost()
    muster.heard(1, 100.0)
    muster.lost()
    assert muster.nodes == 3
    muster.heard(1, 106.0)
    assert not muster.complete, "the time to come back begins anew"


def test_a_node_that_has_heard_nothing_takes_the_number_it_is_told():
    muster = Muster(TIMEOUT_S, nodes=4)
    assert muster.nodes == 4
    muster.lost()  # Redis was not there at the start
    muster.heard(1, 0.0)
    assert (muster.nodes, muster.complete) == (4, False)
    muster.heard(1, TIMEOUT_S)
    assert (muster.nodes, muster.complete) == (1, True)
