from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from gateway.stream.lanes.batch import RUN_MIN, Pending, Run, split_all
from gateway.stream.lanes.linked import linked_parts
from support.lanes import Owner
from support.nats_commands import parse
from tidegate.wire.frames import Message

DATA = st.binary(max_size=80)
TIMES = st.sampled_from([UNSET, "2026-11-23T10:00:01Z", "2026-11-23T10:00:02Z"])
EVENTS = st.lists(st.tuples(st.sampled_from(["a.b", "c"]), DATA, TIMES), min_size=1, max_size=6)
FRAMES = st.lists(EVENTS, min_size=1, max_size=4).filter(lambda frames: sum(map(len, frames)) > 1)
RECEIVED = "2026-11-23T10:00:00Z"


class Trace:
    header = b"traceparent:00-1-2-01\r\n"


def run(events, first, device="d"):
    owner = Owner(device)
    messages = [
        Message(seq, kind, Raw(data), time) for seq, (kind, data, time) in enumerate(events, first)
    ]
    return Run(owner, owner.standing, messages, owner.headers, RECEIVED, 77, 5.0)


def items_of(frames, first):
    """What a lane has of a frame of each device: runs, and single messages."""
    runs = [run(events, first, device) for device, events in zip("defg", frames, strict=False)]
    return [each if len(each.messages) >= RUN_MIN else each.split()[0] for each in runs]


def wire(items, messages=1_000):
    return list(linked_parts(items, b"_INBOX.r", messages))


@given(FRAMES, st.integers(7, 9_995))
def test_each_message_of_a_linked_batch_names_the_one_before(frames, first):
    linked = parse(b"".join(wire(items_of(frames, first))))
    ids = [pairs[b"Nats-Msg-Id"] for _, _, pairs, _ in linked]
    assert ids == [
        b"t:%s:o:%d" % (device.encode(), seq)
        for device, events in zip("defg", frames, strict=False)
        for seq in range(first, first + len(events))
    ]
    links = [pairs.get(b"Nats-Expected-Last-Msg-Id") for _, _, pairs, _ in linked]
    assert links == [None, *ids[:-1]]
    last = len(ids) - 1
    replies = [reply for _, reply, _, _ in linked]
    assert replies == [b"_INBOX.r.0", *[b""] * (last - 1), b"_INBOX.r.%d" % last]
    expected = [b"Nats-Expected-Stream" in pairs for _, _, pairs, _ in linked]
    assert expected == [True, *[False] * (last - 1), True]


@given(FRAMES, st.integers(7, 9_995))
def test_a_run_in_a_linked_batch_has_the_bytes_of_its_messages(frames, first):
    items = items_of(frames, first)
    assert wire(items) == wire(split_all(items))


@given(FRAMES, st.integers(1, 9))
def test_a_linked_batch_that_is_sent_in_parts_is_the_same_batch(frames, messages):
    items = split_all(items_of(frames, 1))
    parts = wire(items, messages)
    assert b"".join(parts) == wire(items)[0]
    assert [len(parse(part)) for part in parts[:-1]] == [messages] * (len(parts) - 1)


def test_a_large_message_has_sizes_of_its_own():
    assert [len(data) for *_, data in parse(wire([run([("a", b"x" * 70_000, UNSET)] * 4, 1)])[0])]


def test_only_an_untraced_message_between_the_ends_begins_with_a_status():
    """An operator's account can have nats-server trace the others by their `traceparent`."""
    owner = Owner()
    items = []
    for seq in range(1, 5):
        trace = Trace() if seq == 2 else None
        event = owner.headers.event(seq, "a", RECEIVED, b"1", trace.header if trace else b"")
        items.append(Pending(owner, owner.standing, seq, event, event.size, 5.0, trace))
    (sent,) = wire(items)
    parse(sent)
    versions = [b"200" in part[: part.index(b"\r\n")] for part in sent.split(b"NATS/1.0")[1:]]
    assert versions == [False, False, True, False]
