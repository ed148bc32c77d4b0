"""What becomes of messages: whom they are told to, what is counted, what room comes back."""

import math

from msgspec import Raw

from gateway.stream.lanes.backlog import Backlog
from gateway.stream.lanes.batch import Answer, Batch, Kind, Pending, Run, Verdict
from gateway.stream.lanes.encoding import SEQ_REUSED, SourceHeaders
from gateway.stream.lanes.settlements import Settlements
from gateway.stream.lanes.standing import NEVER, Standing
from gateway.stream.observer import StreamObserver
from tidegate.wire.frames import Message


class Owner:
    def __init__(self):
        self.said = []

    def stored(self, seq):
        self.said.append(("stored", seq))

    def rejected(self, seq, error, detail):
        self.said.append(("rejected", seq, error, detail))


class Recording(StreamObserver):
    def __init__(self):
        self.seen = []

    def batch_settled(self, kind, messages, duplicates, seconds):
        self.seen.append(("settled", kind, messages, duplicates, seconds))

    def batch_retried(self, reason, messages):
        self.seen.append(("retried", reason, messages))

    def dead_lettered(self, error):
        self.seen.append(("dead_lettered", error))


class Trace:
    """A span that notes what it is told."""

    header = b"traceparent:x\r\n"

    def __init__(self):
        self.said = []

    def settled(self, reject):
        self.said.append(("settled", reject))

    def superseded(self):
        self.said.append("superseded")


class Traces:
    def __init__(self):
        self.seen = []

    def landed(self, *what):
        self.seen.append(what)


class Rig:
    def __init__(self):
        self.traces = Traces()
        self.backlog = Backlog(messages_max=100, bytes_max=10_000)
        self.observer = Recording()
        self.settlements = Settlements(self.backlog, self.observer, self.traces)
        self.standing = Standing(("t", "d", "o"), 120.0)
        self.standing.doubt_seq = 0

    def pending(self, seq, owner, **members):
        envelope = SourceHeaders("t", "d", "o").event(seq, "a", "2026-11-23T10:00:00Z", b"1")
        item = Pending(owner, self.standing, seq, envelope, envelope.size, 5.0, **members)
        self.backlog.add(1, item.size)
        return item


def batch(items, kind=Kind.ATOMIC, answers=None):
    return Batch(1, kind, items, 0.0, answers=answers or {})


def test_each_session_hears_once_how_far_it_is_settled():
    rig, one, two = Rig(), Owner(), Owner()
    items = [rig.pending(1, one), rig.pending(2, one), rig.pending(9, two)]
    rig.settlements.stored(batch(items), items, Answer(Verdict.STORED), 0.25, 0)
    assert (one.said, two.said) == ([("stored", 2)], [("stored", 9)])
    assert rig.backlog.messages == rig.backlog.bytes == 0
    assert rig.observer.seen == [("settled", "atomic", 3, 0, 0.25)]
    assert rig.settlements.stored_messages == 3


def test_a_message_alone_in_its_batch_counts_as_any_other():
    rig, owner = Rig(), Owner()
    item = rig.pending(3, owner)
    duplicate = Answer(Verdict.DUPLICATE, stored_at=7)
    rig.settlements.stored_alone(batch([item], Kind.SINGLE), item, duplicate, 0.25)
    assert owner.said == [("stored", 3)]
    assert rig.standing.stored == 3
    assert rig.backlog.messages == rig.backlog.bytes == 0
    assert rig.observer.seen == [("settled", "single", 1, 1, 0.25)]
    assert rig.settlements.stored_messages == 1
    assert rig.settlements.take_recent() == [0.25]


def test_a_letter_alone_in_its_batch_and_a_sampled_message_are_told_as_any_other():
    rig, owner, trace = Rig(), Owner(), Trace()
    item = rig.pending(3, owner, reject=("schema", "no soc"), trace=trace)
    rig.settlements.stored_alone(batch([item], Kind.SINGLE), item, Answer(Verdict.STORED), 0.25)
    assert owner.said == [("rejected", 3, "schema", "no soc"), ("stored", 3)]
    assert trace.said == [("settled", "schema")]
    assert len(rig.traces.seen) == 1


def test_a_run_is_told_once_and_counts_as_its_messages():
    rig, owner = Rig(), Owner()
    messages = [Message(seq, "a", Raw(b"1")) for seq in (1, 2, 3)]
    headers = SourceHeaders("t", "d", "o")
    run = Run(owner, rig.standing, messages, headers, "2026-11-23T10:00:00Z", 300, 5.0)
    rig.backlog.add(3, 300)
    items = [run, rig.pending(4, Owner())]
    whole = batch(items, Kind.LINKED)
    rig.settlements.landed(whole, 0.25, "")
    rig.settlements.stored(whole, items, Answer(Verdict.STORED), 0.25, 0)
    assert (owner.said, rig.standing.stored) == ([("stored", 3)], 4)
    assert rig.backlog.messages == rig.backlog.bytes == 0
    assert rig.observer.seen == [("settled", "linked", 4, 0, 0.25)]
    assert rig.settlements.stored_messages == 4


def test_the_time_of_each_batch_is_given_once():
    rig = Rig()
    for took_s in (0.25, 0.5):
        items = [rig.pending(1, Owner())]
        rig.settlements.stored(batch(items), items, Answer(Verdict.STORED), took_s, 0)
    assert rig.settlements.take_recent() == [0.25, 0.5]
    assert rig.settlements.take_recent() == []


def test_duplicates_of_a_round_count_without_those_that_are_compared_first():
    rig, owner = Rig(), Owner()
    items = [rig.pending(seq, owner) for seq in (1, 2, 3)]
    answers = {
        0: Answer(Verdict.STORED),
        1: Answer(Verdict.DUPLICATE, stored_at=7),
        2: Answer(Verdict.DUPLICATE, stored_at=8),
    }
    rig.settlements.stored(batch(items, Kind.ROUND, answers), items[:2], None, 0.5, 1)
    assert rig.observer.seen == [("settled", "round", 2, 1, 0.5)]


def test_a_message_that_was_found_counts_as_settled_and_not_as_stored_by_this_node():
    rig, owner = Rig(), Owner()
    rig.settlements.found("lookup", [rig.pending(4, owner)], 1, 0.5)
    assert owner.said == [("stored", 4)]
    assert rig.observer.seen == [("settled", "lookup", 1, 1, 0.5)]
    assert (rig.settlements.stored_messages, rig.settlements.take_recent()) == (0, [])


def test_a_repeat_names_its_reason_and_the_last_one_is_kept():
    rig = Rig()
    rig.settlements.repeated("timeout", 3)
    rig.settlements.absent(2)
    assert rig.observer.seen == [("retried", "timeout", 3), ("retried", "absent", 2)]
    assert rig.settlements.last_reason == "timeout", "an absence is no trouble of the stream"


def test_a_rejected_message_is_told_before_what_is_settled_behind_it():
    rig, owner = Rig(), Owner()
    items = [rig.pending(1, owner, reject=("schema", "no soc")), rig.pending(2, owner)]
    rig.settlements.tell(items)
    assert owner.said == [("rejected", 1, "schema", "no soc"), ("stored", 2)]
    assert rig.observer.seen == [("dead_lettered", "schema")]
    assert rig.standing.stored == 2


def test_a_letter_takes_the_room_that_it_needs():
    rig, owner = Rig(), Owner()
    item = rig.pending(3, owner)
    letter = rig.settlements.dispose(item, "too_large")
    assert (letter.owner, letter.seq, letter.reject[0]) == (owner, 3, "too_large")
    assert letter.envelope.subject == b"deadletters.t.d"
    assert rig.backlog.bytes == letter.size == letter.envelope.size
    assert rig.standing.letter_seq == 3
    rig.settlements.tell([letter])
    assert rig.backlog.bytes == 0


def test_a_letter_needs_a_look_up_where_its_message_may_be_an_event_already():
    rig, owner = Rig(), Owner()
    first = rig.pending(3, owner)
    assert rig.settlements.dispose(first, "too_large").absent_at == first.absent_at
    repeated = rig.pending(4, owner)
    repeated.repeated = True
    assert rig.settlements.dispose(repeated, "too_large").absent_at == NEVER
    rig.standing.doubt_seq = 5
    assert rig.settlements.dispose(rig.pending(5, owner), "too_large").absent_at == NEVER
    reused = rig.settlements.dispose(rig.pending(5, owner), SEQ_REUSED)
    assert reused.absent_at == math.inf, "the seq is another message's: a look-up finds that one"


def test_a_batch_with_sampled_messages_is_recorded_and_one_without_is_not():
    rig, owner, trace = Rig(), Owner(), Trace()
    rig.settlements.landed(batch([rig.pending(1, owner)]), 0.5, "")
    assert rig.traces.seen == []
    items = [rig.pending(2, owner), rig.pending(3, owner, trace=trace)]
    rig.settlements.landed(batch(items), 0.5, "timeout")
    assert rig.traces.seen == [([trace], "atomic", 2, 0.5, "timeout")]


def test_the_span_of_a_message_ends_when_it_is_settled_and_says_where():
    rig, owner, stored, rejected = Rig(), Owner(), Trace(), Trace()
    items = [
        rig.pending(1, owner, trace=stored),
        rig.pending(2, owner, trace=rejected, reject=("schema", "no soc")),
    ]
    rig.settlements.tell(items)
    assert (stored.said, rejected.said) == ([("settled", "")], [("settled", "schema")])


def test_the_span_of_a_message_goes_on_in_its_dead_letter():
    rig, trace = Rig(), Trace()
    letter = rig.settlements.dispose(rig.pending(1, Owner(), trace=trace), "message_size")
    rig.settlements.tell([letter])
    assert trace.said == [("settled", "message_size")]


def test_the_span_of_a_superseded_message_ends_and_its_room_is_given_back():
    rig, trace = Rig(), Trace()
    rig.settlements.drop([rig.pending(1, Owner(), trace=trace), rig.pending(2, Owner())])
    assert trace.said == ["superseded"]
    assert rig.backlog.messages == 0
