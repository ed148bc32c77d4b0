"""Room for anonymous connections."""

from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.anteroom import Anteroom


class Connection:
    def __init__(self):
        self.cause = ""

    def abort(self, cause):
        self.cause = cause


class Recording(EdgeObserver):
    def __init__(self):
        self.refusals = []

    def refused(self, error, reason):
        self.refusals.append((error, reason))


def test_the_connection_that_came_first_is_dropped_when_there_is_no_room():
    observer = Recording()
    room = Anteroom(places=2, observer=observer)
    guests = [Connection() for _ in range(4)]
    for guest in guests:
        room.enter(guest)
    assert [guest.cause for guest in guests] == ["crowded", "crowded", "", ""]
    assert len(room) == 2
    assert observer.refusals == [("anonymous", "crowded")] * 2


def test_a_connection_that_left_is_not_dropped():
    room = Anteroom(places=2, observer=EdgeObserver())
    first, second, third = (Connection() for _ in range(3))
    room.enter(first)
    room.enter(second)
    room.leave(first)
    room.leave(first)
    room.enter(third)
    assert len(room) == 2
    assert not second.cause
