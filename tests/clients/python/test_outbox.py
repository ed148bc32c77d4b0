"""Messages are added, read, settled and given up, on disks that work and on disks that refuse."""

import os
import signal
import sys

import pytest

from support.children import spawned
from support.outboxes import (
    entry,
    refuse_writing,
    rows_of,
    seqs,
    sized,
    take,
)
from tidegate.errors import OutboxError, OutboxFull
from tidegate.outbox import Entry


def test_reading_is_in_order_and_bounded_and_returns_at_least_one_message(open_box):
    outbox = open_box()
    outbox.append([entry(n, size=1_000) for n in range(1, 8)])
    identity = outbox.begin().id

    def read(after, messages_max, bytes_max):
        return seqs(outbox.read(identity, after, messages_max=messages_max, bytes_max=bytes_max))

    assert read(0, 3, 10**6) == [1, 2, 3]
    assert read(2, 100, 2_300) == [3, 4]
    assert read(5, 5, 1) == [6]
    assert read(7, 5, 1) == []
    assert outbox.read("unknown", 0, messages_max=5, bytes_max=100) == []


def test_bytes_max_holds_for_the_frame(open_box):
    from tidegate.wire.frames import encode_messages

    outbox = open_box()
    message_type = ".".join(["a" * 40] * 4)
    outbox.append([Entry(message_type, b"1" * 50, "2026-11-25T10:00:00.123456789+01:00")] * 40)
    run = outbox.begin()
    for bytes_max in range(400, 3_000, 7):
        batch = outbox.read(run.id, 0, messages_max=40, bytes_max=bytes_max)
        assert len(encode_messages(batch)) <= bytes_max


def test_the_file_remembers_whether_gateways_announce_features(open_box):
    outbox = open_box()
    assert not outbox.gateway_has_features
    outbox.remember_features(True)
    outbox.close()
    outbox = open_box()
    assert outbox.gateway_has_features
    outbox.remember_features(False)
    outbox.close()
    assert not open_box().gateway_has_features


def test_a_full_disk_refuses_and_nothing_has_changed(open_box):
    outbox = open_box()
    outbox.append([sized(2_000)] * 3)
    run = outbox.begin()
    refuse_writing(outbox)
    with pytest.raises(OutboxError, match="disk is full") as caught:
        outbox.append([sized(9_000)] * 10)
    assert not isinstance(caught.value, OutboxFull)
    assert (outbox.messages, outbox.bytes, outbox.settled) == (3, 6_000, 0)
    refuse_writing(outbox, refused=False)
    assert outbox.append([sized(9_000)]) == [4]
    assert seqs(take(outbox, run)) == [1, 2, 3, 4]


def test_closing_twice_is_allowed_and_a_closed_outbox_refuses(open_box):
    outbox = open_box()
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxError, match="closed"):
        outbox.append([entry()])


WRITER = """
import sys
from tidegate.outbox import Entry, Outbox
outbox = Outbox(sys.argv[1])
run = outbox.begin()
while True:
    for number in outbox.append([Entry("t", b"1", None)] * 3):
        print(number, flush=True)
    outbox.read(run.id, run.oldest - 1, messages_max=9, bytes_max=10**6)
"""


def test_messages_that_were_reported_on_disk_survive_kill_9(open_box, tmp_path):
    reported = 0
    for _ in range(3):
        with spawned([sys.executable, "-c", WRITER, str(tmp_path / "box")]) as writer:
            heard = [int(writer.stdout.readline()) for _ in range(30)]
            assert heard[0] > reported
            reported = heard[-1]
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split("\n")
            reported = max([reported, *(int(line) for line in rest[:-1])])
    outbox = open_box()
    assert outbox.messages >= reported
    names = [(identity, seq) for _number, identity, seq, _data in rows_of(outbox)]
    assert len(set(names)) == len(names)
    assert len({identity for identity, _seq in names}) == 3


def test_a_message_that_cannot_be_sent_is_returned_alone_and_can_be_removed(open_box):
    outbox = open_box()
    outbox.append([entry(1), entry(2), sized(500), entry(4), entry(5)])
    run = outbox.begin()

    def read(run, after):
        return outbox.read(
            run.id, after, messages_max=9, bytes_max=10**6, fits=lambda each: len(each.data) < 100
        )

    assert seqs(read(run, 0)) == [1, 2]
    (unfit,) = read(run, 2)
    assert outbox.remove(run.number(unfit.seq))
    assert not outbox.remove(run.number(unfit.seq))
    assert read(run, 2) == []
    outbox.settle(run.id, 2)
    following = outbox.begin()
    assert (following.id == run.id, following.oldest, following.number(1)) == (False, 1, 4)
    assert seqs(read(following, 0)) == [1, 2]
    assert outbox.bytes == 2


def test_several_messages_that_cannot_be_sent_follow_each_other(open_box):
    outbox = open_box()
    outbox.append([sized(500)] * 4 + [entry(5)])
    removed = 0
    while True:
        run = outbox.begin()
        batch = outbox.read(
            run.id,
            run.oldest - 1,
            messages_max=9,
            bytes_max=10**6,
            fits=lambda each: len(each.data) < 100,
        )
        if len(batch[0].data) < 100:
            break
        removed += outbox.remove(run.number(batch[0].seq))
    assert removed == 4
    assert run.number(batch[0].seq) == 5
    assert run.sent == 0
