import pytest
from msgspec import Raw

from gateway.stream.outlet import SessionOutlet
from gateway.stream.standing import NEVER, Resume, Standings
from tidegate.wire.frames import Message, Unusable


class Publisher:
    """Takes what is submitted."""

    full = False

    def __init__(self):
        self.standings = Standings(100.0)
        self.items = []
        self.distrusted = []

    def lane_of(self, _device):
        return 3

    def submit(self, index, items):
        assert index == 3
        self.items += items

    def distrust(self, index, standing):
        assert index == 3
        self.distrusted.append(standing)


def message(seq):
    return Message(seq, "a.b", Raw(b'{"n":1}'))


@pytest.fixture
def publisher():
    return Publisher()


@pytest.fixture
def outlet(publisher, monkeypatch):
    monkeypatch.setattr("gateway.stream.outlet.perf_counter", lambda: 50.0)
    return SessionOutlet(publisher, lambda: b"", tenant="t", device="d", outbox="o", owner=object())


def standing(publisher):
    return publisher.standings.of("t", "d", "o", 50.0)


def test_before_anything_is_known_every_message_may_be_stored_already(publisher, outlet):
    outlet.store([message(1)], "2026-11-23T10:00:00Z")
    assert [item.absent_at for item in publisher.items] == [NEVER]


def test_what_a_device_sends_for_the_first_time_was_absent_until_now(publisher, outlet):
    known = standing(publisher)
    known.found(4, 10.0)
    known.doubt(Resume(5, 0, 6), 4, 256)
    outlet.store([message(5)], "2026-11-23T10:00:00Z")
    outlet.store([message(6), message(7)], "2026-11-23T10:00:00Z")
    outlet.store([message(8), Unusable(9, "type", "", b"{}")], "2026-11-23T10:00:00Z")
    assert [(item.seq, item.absent_at) for item in publisher.items] == [
        (5, 10.0),
        (6, 10.0),
        (7, 10.0),  # in one frame with one that is in doubt
        (8, 50.0),
        (9, 50.0),
    ]
    assert known.absent_at(8) == 50.0
    assert publisher.items[-1].reject == ("type", "")
    assert publisher.items[-1].envelope.stream == "DEADLETTERS"


def test_a_lane_hears_of_messages_that_may_be_repeats(publisher, outlet):
    known = standing(publisher)
    known.found(4, 40.0)
    told = Resume(5, 0, 6)
    assert known.resume(told, 45.0) == 4
    known.doubt(told, 4, 256)
    outlet.store([message(5)], "2026-11-23T10:00:00Z")
    assert publisher.distrusted == [known]
    outlet.store([message(7)], "2026-11-23T10:00:00Z")
    assert publisher.distrusted == [known]
    assert not known.unsure
