"""Which refusals break the promise of a ticket."""

import random
import time

import pytest

from gateway.admission.ticket import TicketOffice
from loadtest.devices import vehicle
from loadtest.devices.gevent_link import Refused
from loadtest.devices.policies import make_policy
from loadtest.devices.tickets import is_dishonoured, late_of
from loadtest.devices.vehicle import Vehicle, VehiclePlan
from loadtest.devices.wire import Answer

RATE = b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"error":"admission","reason":"rate"}'


def ticket(late_s):
    """A ticket whose slot was so long ago."""
    now = time.time()
    office = TicketOffice([b"s" * 32])
    return office.issue(now - late_s, holder=b"h" * 8, now=now)


def test_a_benchmark_reads_the_slot_of_a_ticket():
    assert late_of(ticket(12.0)) == pytest.approx(12.0, abs=1.0)
    assert late_of(None) is None


@pytest.mark.parametrize(
    ("late_s", "reason", "dishonoured"),
    [
        (-60.0, "rate", True),
        (0.0, "rate", True),
        (60.0, "rate", False),
        (0.0, "draining", False),
    ],
)
def test_a_ticket_is_dishonoured_only_within_its_window(late_s, reason, dishonoured):
    assert is_dishonoured(ticket(late_s), reason) is dishonoured


def test_without_a_ticket_nothing_is_dishonoured():
    assert not is_dishonoured(None, "rate")


class Watching:
    """Keeps what it is told of refusals."""

    def __init__(self):
        self.dishonoured = []

    def knocked(self):
        pass

    def refused(self, _refusal, _knocking_s, *, dishonoured):
        self.dishonoured.append(dishonoured)


class Over(Exception):
    """The vehicle has knocked; it would wait now."""


@pytest.mark.parametrize(("late_s", "dishonoured"), [(1.0, True), (60.0, False)])
def test_a_vehicle_that_comes_after_its_window_is_not_dishonoured(monkeypatch, late_s, dishonoured):
    def refuse(_url, _token, shown, _context):
        assert shown
        raise Refused(Answer(RATE))

    def over(_seconds):
        raise Over

    monkeypatch.setattr(vehicle, "Link", refuse)
    monkeypatch.setattr(vehicle.gevent, "sleep", over)
    watcher = Watching()
    policy = make_policy("ticket", random.Random(1))
    plan = VehiclePlan(["ws://gateway"], lambda: "token", policy)
    policy.refused(0, ticket(late_s))
    with pytest.raises(Over):
        Vehicle("veh", plan, watcher).run()
    assert watcher.dishonoured == [dishonoured]
