"""The sessions of a node as its fleet sees them, when the fleet changes their fences."""

from types import SimpleNamespace

import pytest

from gateway.cluster.fences import Fences
from gateway.edge.fleet import Fleet
from gateway.node.cluster.sessions import FleetSessions

KEY = ("t", "veh")


class Session:
    """Of a device; its welcome had this fence."""

    key = KEY

    def __init__(self, fence):
        self.fence = fence
        self.seat = SimpleNamespace(fence=fence)
        self.superseded = False

    def supersede(self):
        self.superseded = True


class Here:
    """A node at a time of 1 s, with one session."""

    def __init__(self):
        self.fleet = Fleet(first_retry_ms_min=1, refusals_per_s=1, clock=lambda: 0.0)
        self.fences = Fences(lambda: 1.0)
        self.sessions = FleetSessions(self.fleet, self.fences)
        self.session = Session(self.fences.next())
        self.fleet.add(self.session)
        self.raised = []
        self.sessions.on_raised.add(self.raised.append)


@pytest.fixture
def here():
    return Here()


def test_a_newer_session_elsewhere_ends_the_one_here(here):
    here.sessions.newer_elsewhere(KEY, 1_000_000)
    assert not here.session.superseded
    here.sessions.newer_elsewhere(KEY, 1_000_001)
    assert here.session.superseded


def test_a_raised_session_is_newer_than_the_one_elsewhere_and_older_than_the_next_one(here):
    here.sessions.raised(KEY, 1_000_000, 1_500_000)
    assert here.sessions.present() == [(KEY, 1_500_000)]
    assert here.raised == [KEY]
    assert here.fences.next() > 1_500_000


def test_a_session_that_is_not_meant_is_not_raised(here):
    here.sessions.raised(KEY, 999_999, 1_500_000)
    here.sessions.raised(("t", "other"), 1_000_000, 1_500_000)
    assert here.sessions.present() == [(KEY, 1_000_000)]
    assert here.raised == []


def test_the_fleet_knows_a_session_that_ends_by_the_fence_that_it_has_now(here):
    assert here.sessions.ended(KEY, 1_000_000) == 1_000_000
    here.sessions.raised(KEY, 1_000_000, 1_500_000)
    here.sessions.time_stepped(2.0)
    assert here.sessions.ended(KEY, 1_000_000) == 3_500_000
    assert here.sessions.ended(KEY, 1_000_000) == 1_000_000
