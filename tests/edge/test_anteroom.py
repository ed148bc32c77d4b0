"""Room for those who have not said who they are."""

from gateway.edge.anteroom import Anteroom
from gateway.edge.observer import EdgeObserver


class Guest:
    def __init__(self):
        self.cause = ""

    def abort(self, cause):
        self.cause = cause


class Recording(EdgeObserver):
    def __init__(self):
        self.refusals = []

    def refused(self, error, reason):
        self.refusals.append((error, reason))


def test_the_first_goes_when_there_is_no_room():
    observer = Recording()
    room = Anteroom(places=2, observer=observer)
    guests = [Guest() for _ in range(4)]
    for guest in guests:
        room.enter(guest)
    assert [guest.cause for guest in guests] == ["crowded", "crowded", "", ""]
    assert len(room) == 2
    assert observer.refusals == [("anonymous", "crowded")] * 2


def test_whoever_left_is_not_dropped():
    room = Anteroom(places=2, observer=EdgeObserver())
    first, second, third = (Guest() for _ in range(3))
    room.enter(first)
    room.enter(second)
    room.leave(first)
    room.leave(first)
    room.enter(third)
    assert len(room) == 2
    assert not second.cause
