import pytest
from msgspec import Raw

from gateway.stream.lanes.outlet import SessionOutlet
from gateway.stream.lanes.standing import NEVER, Resume, Standings
from tidegate.wire.frames import Message, Unusable


class Publisher:
    """Takes what is submitted to its one lane."""

    pending = None

    def __init__(self):
        self.standings = Standings(100.0)
        self.items = []
        self.distrusted = []

    def lane_of(self, device):
        assert device == "t.d"
        return self

    def submit(self, items, size):
        assert size == sum(item.size for item in items)
        assert all(item.size == item.envelope.size for item in items)
        self.items += items

    def distrust(self, standing):
        self.distrusted.append(standing)


def message(seq):
    return Message(seq, "a.b", Raw(b'{"n":1}'))


@pytest.fixture
def publisher():
    return Publisher()


@pytest.fixture
def outlet(publisher):
    return SessionOutlet(
        publisher,
        tenant="t",
        device="d",
        outbox="o",
        owner=object(),
        clock=lambda: 50.0,
    )


def standing(publisher):
    return publisher.standings.of("t", "d", "o", 50.0)


def test_a_message_of_an_unknown_outbox_may_be_stored_already(publisher, outlet):
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


def test_what_may_be_stored_in_the_other_stream_is_looked_up_first(publisher, outlet):
    """A schema may have changed meanwhile, and duplicates show within one stream only."""
    known = standing(publisher)
    known.found(4, 40.0)
    known.doubt(Resume(5, 0, 7), 4, 256)
    outlet.store([message(5), Unusable(6, "schema", "", b"{}")], "2026-11-23T10:00:00Z")
    outlet.store([message(6)], "2026-11-23T10:00:00Z")
    outlet.store([message(7)], "2026-11-23T10:00:00Z")
    assert [(item.seq, item.absent_at) for item in publisher.items] == [
        (5, 40.0),
        (6, NEVER),  # a letter: it may be an event already
        (6, NEVER),  # an event: it may be a letter already
        (7, 40.0),
    ]
    outlet.store([Unusable(8, "schema", "", b"{}")], "2026-11-23T10:00:00Z")
    assert publisher.items[-1].absent_at == 50.0, "sent for the first time"
