"""Which number is which (id, seq), what may have been sent, and what is settled."""

import sqlite3

import pytest

from support.outboxes import entry, refuse_commits, refuse_deleting, rows_of, seqs, sized, take
from tidegate.bounds import OutboxLimits
from tidegate.errors import OutboxError


def test_numbers_rise_across_openings_and_each_opening_takes_a_fresh_id(open_box):
    outbox = open_box()
    assert outbox.append([entry(1), entry(2), entry(3)]) == [1, 2, 3]
    first = outbox.begin()
    assert (first.oldest, first.last, first.sent, first.number(2)) == (1, 3, 0, 2)
    outbox.settle(first.id, 2)
    outbox.close()

    again = open_box()
    assert again.append([entry(4)]) == [4]
    old = again.begin()
    assert old.id == first.id, "what may have been sent keeps its id and seq"
    assert (old.oldest, old.last, old.sent) == (3, 3, 3), "all of it may have been sent"
    assert [bytes(message.data) for message in take(again, old)] == [b"3"]
    assert again.settle(old.id, 3) == 1
    new = again.begin()
    assert new.id != first.id
    assert (new.oldest, new.last, new.sent, new.number(1)) == (1, 1, 0, 4)
    assert seqs(take(again, new)) == [1]
    assert again.settled == 3
    again.settle(new.id, 1)
    assert (again.settled, again.messages, again.bytes) == (4, 0, 0)
    idle = again.begin()
    assert (idle.id, idle.oldest, idle.last, idle.sent) == (new.id, 2, 1, 1)


def test_an_opening_without_messages_saves_no_id(open_box, tmp_path):
    for _ in range(3):
        outbox = open_box()
        outbox.begin()
        outbox.close()
    database = sqlite3.connect(tmp_path / "box")
    assert database.execute("SELECT count(*) FROM ids").fetchone() == (0,)
    database.close()


def test_ids_whose_messages_are_settled_leave_the_file(open_box, tmp_path):
    for _ in range(5):
        outbox = open_box()
        outbox.append([entry()])
        outbox.settle(outbox.begin().id, 1)
        outbox.close()
    database = sqlite3.connect(tmp_path / "box")
    assert database.execute("SELECT count(*) FROM ids").fetchone() == (1,)
    database.close()


def test_messages_that_were_read_count_as_sent(open_box):
    outbox = open_box()
    outbox.append([entry(n) for n in range(5)])
    run = outbox.begin()
    take(outbox, run, messages_max=3)
    assert outbox.begin().sent == 3, "a session that was lost may have sent it"
    outbox.settle(run.id, 5)
    assert outbox.begin().sent == 3


def test_a_seq_beyond_those_assigned_settles_and_ends_its_id(open_box):
    outbox = open_box()
    outbox.append([entry()] * 3)
    old = outbox.begin()
    outbox.close()
    outbox = open_box()
    outbox.append([entry()] * 2)
    assert outbox.settle(old.id, 900) == 3, "the messages of the next id are not touched"
    current = outbox.begin()
    assert outbox.settle(current.id, 900) == 2
    assert outbox.append([entry()]) == [6]
    after = outbox.begin()
    assert after.id not in (old.id, current.id)
    assert (after.oldest, after.sent, after.number(1)) == (1, 0, 6)
    assert outbox.settle("unknown", 5) == 0


def test_numbers_of_a_failed_commit_are_never_used_again(open_box):
    outbox = open_box()
    outbox.append([entry()] * 3)
    run = outbox.begin()
    refuse_commits(outbox)
    with pytest.raises(OutboxError):
        outbox.append([entry()] * 10)
    refuse_commits(outbox, refused=False)
    assert (outbox.messages, outbox.bytes, outbox.settled) == (3, 3, 0)
    assert outbox.append([entry()]) == [14]
    assert seqs(take(outbox, run)) == [1, 2, 3]
    outbox.settle(run.id, 3)
    following = outbox.begin()
    assert following.id != run.id, "the seqs of the old one may be on the disk"
    assert following.number(1) == 14


def test_a_settle_that_the_disk_refused_is_repeated(open_box):
    outbox = open_box()
    outbox.append([entry(n) for n in range(5)])
    run = outbox.begin()
    take(outbox, run)
    refuse_deleting(outbox)
    with pytest.raises(OutboxError):
        outbox.settle(run.id, 3)
    assert (outbox.messages, outbox.settled) == (5, 3)
    with pytest.raises(OutboxError):
        outbox.tend()
    again = outbox.begin()
    assert (again.oldest, seqs(take(outbox, again))) == (4, [4, 5])
    refuse_deleting(outbox, refused=False)
    outbox.tend()
    assert (outbox.messages, outbox.settled) == (2, 3)
    outbox.settle(run.id, 5)
    assert (outbox.messages, outbox.settled) == (0, 5)


def test_seqs_begin_at_1_although_the_first_messages_were_dropped_at_once(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=3, when_full="drop_oldest"))
    said = outbox.begin()
    assert outbox.append([sized()] * 5) == [1, 2, 3, 4, 5]
    run = outbox.begin()
    assert run.id != said.id, "a session may have said hello for the old one"
    assert (run.oldest, run.last, run.number(1)) == (1, 3, 3)
    assert seqs(take(outbox, run)) == [1, 2, 3]


def test_messages_on_their_way_are_not_dropped_and_those_behind_the_hole_get_a_fresh_id(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=10, when_full="drop_oldest"))
    outbox.append([entry(n) for n in range(1, 11)])
    run = outbox.begin()
    assert seqs(take(outbox, run, messages_max=4)) == [1, 2, 3, 4]
    outbox.append([entry(11)])
    assert outbox.dropped == 2
    assert take(outbox, run, after=4) == [], "no hole on the wire"
    assert outbox.settle(run.id, 4) == 4
    following = outbox.begin()
    assert following.id != run.id
    assert (following.oldest, following.sent, following.number(1)) == (1, 0, 7)
    assert [bytes(each.data) for each in take(outbox, following)] == [
        b"7",
        b"8",
        b"9",
        b"10",
        b"11",
    ]
    assert outbox.append([entry(12)]) == [12]
    assert seqs(take(outbox, following, after=5)) == [6], "the fresh id is that of what comes"


def test_if_all_messages_behind_a_hole_are_dropped_the_next_one_gets_the_fresh_id(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=10, when_full="drop_oldest"))
    outbox.append([entry(n) for n in range(1, 11)])
    run = outbox.begin()
    take(outbox, run, messages_max=4)
    outbox.append([entry(n) for n in range(11, 17)])
    assert [row[0] for row in rows_of(outbox)] == [1, 2, 3, 4, 11, 12, 13, 14, 15, 16]
    outbox.settle(run.id, 4)
    assert (outbox.begin().oldest, outbox.begin().number(1)) == (1, 11)


def test_a_hole_among_messages_that_may_have_been_sent_is_shown_to_the_session(open_box):
    limits = OutboxLimits(messages_max=10, when_full="drop_oldest")
    outbox = open_box(limits=limits)
    outbox.append([entry()] * 10)
    outbox.close()
    outbox = open_box(limits=limits)
    run = outbox.begin()
    take(outbox, run, messages_max=4)
    outbox.append([entry()])
    batch = take(outbox, run, after=4)
    assert seqs(batch)[0] == 7, "seq 5 and 6 are gone"
    outbox.settle(run.id, 4)
    again = outbox.begin()
    assert (again.id, again.oldest, again.sent) == (run.id, 7, 10)


def test_a_hole_within_an_earlier_id_of_the_same_opening_gets_a_fresh_id_too(open_box):
    outbox = open_box()
    outbox.append([entry(n) for n in range(1, 5)])
    run = outbox.begin()
    refuse_commits(outbox)
    with pytest.raises(OutboxError):
        outbox.append([entry()])
    refuse_commits(outbox, refused=False)
    assert outbox.append([entry(6)]) == [6], "under an id of its own"
    take(outbox, run, messages_max=1)
    assert outbox.remove(2)
    assert [(identity == run.id, seq) for _number, identity, seq, _data in rows_of(outbox)] == [
        (True, 1), (False, 1), (False, 2), (False, 1),
    ]  # fmt: skip
    assert len({identity for _number, identity, _seq, _data in rows_of(outbox)}) == 3


def test_a_removal_at_the_end_of_an_earlier_id_changes_no_other_id(open_box):
    outbox = open_box()
    outbox.append([entry(1), entry(2)])
    outbox.begin()
    refuse_commits(outbox)
    with pytest.raises(OutboxError):
        outbox.append([entry()])
    refuse_commits(outbox, refused=False)
    outbox.append([entry(4)])
    before = rows_of(outbox)
    assert outbox.remove(2)
    assert rows_of(outbox) == [before[0], before[2]]
