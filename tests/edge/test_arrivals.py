"""Devices on their way in, as the look-up sees them."""

from types import SimpleNamespace

from gateway.edge.arrivals import Arrivals, Waiting


def member(device):
    return SimpleNamespace(key=("t", device))


def test_a_session_is_on_its_way_from_its_opening_to_its_welcome_or_end():
    arrivals, one = Arrivals(), member("d")
    arrivals.opened(one)
    assert arrivals.greeting("t", "d") is one
    assert arrivals.greeting("t", "e") is None
    arrivals.over(one)
    arrivals.over(one)
    assert arrivals.greeting("t", "d") is None


def test_the_end_of_an_older_session_does_not_hide_the_newer_one():
    arrivals, older, newer = Arrivals(), member("d"), member("d")
    arrivals.opened(older)
    arrivals.opened(newer)
    arrivals.over(older)
    assert arrivals.greeting("t", "d") is newer


def test_a_device_is_parked_while_one_of_its_visitors_waits():
    arrivals, visitor = Arrivals(), object()
    identity = SimpleNamespace(key=("t", "d"))
    arrivals.waiting[visitor] = Waiting(visitor, identity)
    assert arrivals.parked("t", "d")
    assert not arrivals.parked("other", "d")
    del arrivals.waiting[visitor]
    assert not arrivals.parked("t", "d")
