"""The parking lot: order, bounds, and that each waiter leaves it once."""

import math

from gateway.admission.lot import Parked, ParkingLot, Rank


def place(name, rank=Rank.TICKET, due=1.0, latest=6.0):
    return Parked(name, rank, due, latest, 1.0, name.encode())


def lot_of(*places, size=100):
    lot = ParkingLot(places=size)
    for each in places:
        lot.park(each)
    return lot


def taken(lot, now):
    """The waiters that may go by `now`, in their order."""
    found = []
    while (front := lot.front(now)) is not None:
        found.append(lot.take(front))
    return found


def test_waiters_go_by_rank_and_then_by_slot_once_it_has_come():
    lot = lot_of(
        place("walk-in", Rank.WALK_IN, due=0.0),
        place("late", due=2.0),
        place("early", due=1.0),
        place("urgent", Rank.PRIORITY, due=1.5),
        place("future", Rank.PRIORITY, due=9.0),
    )
    assert taken(lot, 2.0) == ["urgent", "early", "late", "walk-in"]
    assert len(lot) == 1
    assert (lot.next_due(), lot.next_latest()) == (9.0, 6.0)


def test_walk_ins_have_half_of_the_lot():
    lot = lot_of(place("a"), place("b"), size=4)
    assert not lot.room(Rank.WALK_IN)
    assert lot.room(Rank.TICKET)
    lot.park(place("c"))
    lot.park(place("d"))
    assert not lot.room(Rank.PRIORITY)


def test_a_waiter_that_left_is_never_taken_and_its_device_has_no_place():
    lot = lot_of(place("a"), place("b"))
    assert lot.leave("a").holder == b"a"
    assert lot.leave("a") is None
    assert lot.place_of(b"a") is None
    assert len(lot) == 1
    assert taken(lot, 5.0) == ["b"]
    assert lot.leave("b") is None


def test_a_newer_connection_takes_the_place_of_the_older_one():
    lot = lot_of(place("older"))
    assert lot.replace(lot.place_of(b"older"), "newer") == "older"
    assert lot.leave("older") is None
    assert taken(lot, 1.0) == ["newer"]


def test_overdue_waiters_are_found_whatever_their_slot():
    lot = lot_of(place("patient", latest=9.0), place("overdue", Rank.WALK_IN, due=5.0, latest=6.0))
    assert lot.overdue(5.9) is None
    assert lot.take(lot.overdue(6.0)) == "overdue"
    assert lot.overdue(6.0) is None


def test_the_cost_of_what_is_due_is_counted_up_to_what_is_asked_for():
    lot = lot_of(*(place(f"{n}", due=1.0 + n % 5, rank=Rank(n % 3)) for n in range(30)))
    assert [lot.due(now, 100.0) for now in (0.9, 1.0, 2.5, 9.0)] == [0.0, 6.0, 12.0, 30.0]
    assert lot.due(9.0, 7.0) == 7.0
    lot.leave("0")
    assert lot.due(1.0, 100.0) == 5.0


def test_an_empty_lot_has_nothing_due():
    lot = lot_of()
    assert lot.due(1.0, 100.0) == 0.0
    assert (lot.front(1.0), lot.overdue(1.0), lot.next_due()) == (None, None, None)
    assert lot.next_latest() == math.inf


def test_clearing_returns_all_that_still_wait():
    lot = lot_of(place("a", due=2.0), place("b", due=1.0), place("gone"))
    lot.leave("gone")
    assert [each.waiter for each in lot.clear()] == ["b", "a"]
    assert len(lot) == 0
    assert lot.front(9.0) is None
    assert lot.place_of(b"a") is None
