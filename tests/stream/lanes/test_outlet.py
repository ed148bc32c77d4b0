import pytest
from msgspec import Raw

from gateway.stream.lanes.outlet import SessionOutlet
from gateway.stream.lanes.standing import NEVER, Resume, Standings
from tidegate.wire.frames import Message, Unusable


class Publisher:
    """Takes what is submitted to its one lane."""

    pending = None
    takes_runs = False

    def __init__(self):
        self.standings = Standings(100.0)
        self.items = []
        self.runs = []
        self.distrusted = []

    def lane_of(self, device):
        assert device == "t.d"
        return self

    def submit(self, items, size):
        assert size == sum(item.size for item in items)
        assert all(item.size == item.envelope.size for item in items)
        self.items += items

    def submit_run(self, run):
        self.runs.append(run)

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


def test_events_of_one_frame_that_are_new_go_as_one_where_batches_are_linked(publisher, outlet):
    known = standing(publisher)
    known.found(4, 40.0)
    known.doubt(Resume(5, 0, 5), 4, 256)
    publisher.takes_runs = True
    outlet.store([message(5), message(6)], "2026-11-23T10:00:00Z")
    assert [item.seq for item in publisher.items] == [5, 6], "one of them may be a repeat"
    outlet.store([message(7), message(8)], "2026-11-23T10:00:00Z")
    outlet.store([message(9)], "2026-11-23T10:00:00Z")
    outlet.store([message(10), Unusable(11, "type", "", b"{}")], "2026-11-23T10:00:00Z")
    assert [item.seq for item in publisher.items] == [5, 6, 9, 10, 11]
    (run,) = publisher.runs
    assert ([each.seq for each in run.messages], run.absent_at) == ([7, 8], 50.0)
    alone = publisher.items[2]
    (first, _second) = run.split()
    assert first.envelope.body == alone.envelope.body.replace(b":9\r", b":7\r")
    assert abs(first.size - alone.size) < 40, "its size is nearly that of its bytes"


def test_a_message_that_is_traced_or_marked_goes_alone(publisher):
    class Span:
        header = b"traceparent:x\r\n"

    for more in ({"sample": lambda _messages, _key: {2: Span()}}, {"mark": lambda *_: b"a:b\r\n"}):
        outlet = SessionOutlet(
            publisher, **more, tenant="t", device="d", outbox="o", owner=object(), clock=lambda: 1.0
        )
        standing(publisher).doubt_seq = 0
        publisher.takes_runs = True
        outlet.store([message(1), message(2)], "2026-11-23T10:00:00Z")
    assert (len(publisher.items), publisher.runs) == (4, [])
