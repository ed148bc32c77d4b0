"""Which slot a device is entitled to: its ticket and the memory of the node, reconciled."""

import math

import pytest

from gateway.admission.entitlement import Entitlements, Promise
from gateway.admission.lot import Rank
from gateway.admission.ticket import TicketOffice
from support.storm import SECRET, Counting

A, B = b"holder-a", b"holder-b"


class Calendar:
    def __init__(self):
        self.until = math.inf

    def promised_until(self, _now):
        return self.until


class Book:
    """Entitlements of one node, and the tickets of another with the same secret."""

    def __init__(self):
        self.observer = Counting()
        self.elsewhere = TicketOffice([SECRET])
        self.calendar = Calendar()
        self.entitlements = Entitlements(
            office=TicketOffice([SECRET]),
            calendar=self.calendar,
            observer=self.observer,
            window_s=10.0,
            late_s=30.0,
            entries_max=100,
        )

    def slot(self, holder, ticket="", now=0.0):
        promise = self.entitlements.promise_of(holder, ticket, now)
        return None if promise is None else round(promise.slot_at, 3)


@pytest.fixture
def book():
    return Book()


def test_a_stranger_is_entitled_to_nothing(book):
    assert book.slot(A) is None


def test_a_promise_is_remembered_without_its_ticket_and_is_nobody_elses(book):
    ticket = book.entitlements.promise(A, 5.0, 0.0, priority=False)
    assert book.slot(A) == book.slot(A, ticket) == 5.0
    assert book.slot(B) is None
    assert book.slot(B, ticket) is None
    assert book.observer.counts == {"ticket_issued": 1, "ticket_invalid": 1}


@pytest.mark.parametrize("priority", [False, True])
def test_the_rank_is_in_the_ticket(book, priority):
    ticket = book.entitlements.promise(A, 5.0, 0.0, priority=priority)
    rank = Rank.PRIORITY if priority else Rank.TICKET
    promise = book.entitlements.promise_of(A, ticket, 0.0)
    assert promise.rank is rank
    again = book.entitlements.repeat(A, promise, 1.0)
    assert book.entitlements.promise_of(A, again, 1.0).rank is rank


def test_a_ticket_of_another_node_counts_and_is_remembered_once_repeated(book):
    ticket = book.elsewhere.issue(7.0, holder=A, now=0.0)
    assert book.slot(A, ticket) == 7.0
    assert book.slot(A) is None
    promise = book.entitlements.promise_of(A, ticket, 0.0)
    book.entitlements.repeat(A, promise, 0.0)
    assert book.slot(A) == 7.0


def test_an_old_ticket_does_not_replace_a_newer_promise(book):
    old = book.elsewhere.issue(1.0, holder=A, now=0.0)
    book.entitlements.promise(A, 50.0, 20.0, priority=False)
    assert book.slot(A, old, now=20.0) == 50.0
    current = book.elsewhere.issue(15.0, holder=A, now=0.0)
    assert book.slot(A, current, now=20.0) == 15.0, "in its window it counts"


def test_a_used_slot_counts_once_until_it_is_given_back(book):
    ticket = book.entitlements.promise(A, 5.0, 0.0, priority=False)
    book.entitlements.spend(A, 5.0, 5.0)
    assert book.slot(A, ticket, now=5.0) is None
    assert book.observer.counts["ticket_replayed"] == 1
    book.entitlements.restore(A, 5.0, 5.0)
    assert book.slot(A, ticket, now=5.0) == 5.0


def test_a_used_slot_uses_up_earlier_tickets_and_no_later_one(book):
    """The slot of a ticket is in whole milliseconds, and may be a little later than the slot."""
    book.entitlements.spend(A, 5.0006, 5.0)
    earlier, same, later = (
        book.elsewhere.issue(slot_at, holder=A, now=0.0) for slot_at in (2.0, 5.0006, 5.002)
    )
    assert book.slot(A, earlier, now=5.0) is None
    assert book.slot(A, same, now=5.0) is None
    assert book.slot(A, later, now=5.0) == 5.002


@pytest.mark.parametrize(("now", "gives_priority"), [(5.0, True), (45.0, True), (45.1, False)])
def test_a_promise_gives_priority_for_a_while_after_its_window(book, now, gives_priority):
    assert book.entitlements.gives_priority(Promise(5.0, Rank.TICKET), now) is gives_priority


def test_a_ticket_for_a_slot_that_nobody_can_have_promised_is_worth_nothing(book):
    ticket = book.elsewhere.issue(70.0, holder=A, now=0.0)
    book.calendar.until = 70.0
    assert book.slot(A, ticket) == 70.0
    book.calendar.until = 69.9
    assert book.slot(A, ticket) is None
    assert book.observer.counts["ticket_invalid"] == 1
