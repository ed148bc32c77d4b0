"""At its bounds of messages, bytes and age an outbox refuses or drops."""

import pytest

from support.outboxes import SetClocks, entry, rows_of, seqs, sized, take
from tidegate.bounds import OutboxLimits
from tidegate.errors import OutboxFull

DAY_S = 86_400


def test_a_full_outbox_refuses_new_messages_and_keeps_the_old_ones(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=3))
    outbox.append([sized()] * 3)
    (refused,) = outbox.append([sized()])
    assert isinstance(refused, OutboxFull)
    assert "3 messages" in str(refused)
    outbox.settle(outbox.begin().id, 1)
    assert outbox.append([sized()]) == [4]
    assert (outbox.messages, outbox.dropped) == (3, 0)


def test_a_group_commit_is_judged_message_by_message(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=10))
    outbox.append([sized()] * 5)
    results = outbox.append([sized()] * 6)
    assert results[:5] == [6, 7, 8, 9, 10]
    assert isinstance(results[5], OutboxFull)
    assert (outbox.messages, outbox.next_number) == (10, 11)


def test_the_bound_of_bytes_refuses_messages(open_box):
    outbox = open_box(limits=OutboxLimits(bytes_max=10))
    outbox.append([sized(6)])
    too_much, fits = outbox.append([sized(5), sized(4)])
    assert isinstance(too_much, OutboxFull)
    assert "10 bytes" in str(too_much)
    assert fits == 2
    assert outbox.bytes == 10


def test_the_oldest_messages_are_dropped_and_counted(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=20, when_full="drop_oldest"))
    outbox.append([sized()] * 20)
    outbox.append([sized()])
    assert outbox.dropped == 3, "one, and a tenth more"
    assert outbox.begin().oldest == 4
    assert (outbox.messages, outbox.settled) == (18, 3)


def test_dropping_holds_within_a_group_commit_too(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=10, when_full="drop_oldest"))
    outbox.append([sized()] * 5)
    assert outbox.append([sized()] * 500) == list(range(6, 506))
    assert (outbox.messages, outbox.dropped, outbox.settled) == (10, 495, 495)
    assert [row[0] for row in rows_of(outbox)] == list(range(496, 506))
    assert outbox.bytes == 20


def test_dropping_holds_in_bytes(open_box):
    limits = OutboxLimits(bytes_max=100, when_full="drop_oldest")
    outbox = open_box(limits=limits)
    outbox.append([sized(30)] * 3)
    results = outbox.append([sized(101), sized(40), sized(50), sized(45)])
    assert isinstance(results[0], OutboxFull), "it fits no outbox of this size"
    assert results[1:] == [4, 5, 6]
    assert [row[0] for row in rows_of(outbox)] == [5, 6]
    assert (outbox.bytes, outbox.dropped) == (95, 4)


def test_with_every_message_on_its_way_the_oldest_give_way(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=3, when_full="drop_oldest"))
    outbox.append([entry()] * 3)
    run = outbox.begin()
    take(outbox, run)
    assert outbox.append([entry()]) == [4]
    assert (outbox.messages, outbox.dropped) == (3, 1)
    assert seqs(take(outbox, run, after=3)) == [4], "the session goes on"
    outbox.settle(run.id, 4)
    assert outbox.messages == 0


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
def test_the_age_bound_refuses_or_drops(open_box, when_full):
    clocks = SetClocks()
    outbox = open_box(limits=OutboxLimits(age_max_s=60, when_full=when_full), clocks=clocks)
    outbox.append([sized()] * 2)
    clocks.pass_s(30)
    outbox.append([sized()])
    clocks.pass_s(31)
    if when_full == "refuse":
        (refused,) = outbox.append([sized()])
        assert isinstance(refused, OutboxFull)
        assert "60.0 s" in str(refused) or "60 s" in str(refused)
        assert outbox.expire() == 0
    else:
        assert outbox.append([sized()]) == [4]
        assert outbox.dropped == 2
        assert outbox.begin().oldest == 3


@pytest.mark.parametrize("look", ["expire", "begin", "tend", "read"])
def test_the_age_bound_holds_without_an_append(open_box, look):
    clocks = SetClocks()
    limits = OutboxLimits(age_max_s=60, when_full="drop_oldest")
    outbox = open_box(limits=limits, clocks=clocks)
    outbox.append([sized()] * 3)
    run = outbox.begin()
    take(outbox, run, messages_max=1)
    clocks.pass_s(61)
    if look == "read":
        assert take(outbox, run, after=1) == []
    else:
        getattr(outbox, look)()
    kept = 0 if look == "begin" else 1
    assert (outbox.messages, outbox.dropped) == (kept, 3 - kept), "what is on its way stays"


def test_no_jump_of_the_wall_clock_makes_a_message_old(open_box):
    clocks = SetClocks(wall_s=0.0)
    limits = OutboxLimits(age_max_s=60, when_full="drop_oldest")
    outbox = open_box(limits=limits, clocks=clocks)
    outbox.append([sized()])
    for wall_s in (1_800_000_000, 5, 4_000_000_000, -100):
        clocks.wall_s = wall_s
        assert outbox.expire() == 0
        assert outbox.begin().age_ms == 0
    outbox.close()
    clocks.wall_s = 1_900_000_000
    outbox = open_box(limits=limits, clocks=clocks)
    assert outbox.begin().age_ms == 0, "the same boot: its clock has not moved"
    clocks.pass_s(20)
    outbox.append([sized()])
    outbox.close()
    clocks.reboot(off_s=0, wall_s=10.0)
    outbox = open_box(limits=limits, clocks=clocks)
    assert outbox.begin().age_ms == 20_000, "1970 after a reboot: the time off counts as nothing"
    outbox.append([sized()])
    outbox.close()
    clocks.reboot(off_s=0, wall_s=2_000_000_000.0)
    outbox = open_box(limits=limits, clocks=clocks)
    assert outbox.messages == 3, "nor does it after a reboot into a clock that is right"
    assert outbox.begin().age_ms == 20_000


def test_time_while_the_process_or_the_device_was_off_counts(open_box):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    outbox.append([sized()])
    outbox.close()
    clocks.pass_s(50)
    outbox = open_box(clocks=clocks)
    assert outbox.begin().age_ms == 50_000
    outbox.append([sized()])
    outbox.close()
    clocks.reboot(off_s=DAY_S)
    assert open_box(clocks=clocks).begin().age_ms == (50 + DAY_S) * 1000
