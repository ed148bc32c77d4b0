"""What the log of a storm counts."""

import time

import pytest

from gateway.admission.ticket import TicketOffice
from loadtest.devices.storm import late_of


def test_a_benchmark_reads_the_slot_of_a_ticket():
    office = TicketOffice([b"s" * 32])
    now = time.time()
    ticket = office.issue(now - 12.0, holder=b"h" * 8, now=now)
    assert late_of(ticket) == pytest.approx(12.0, abs=1.0)
    assert late_of(None) is None
