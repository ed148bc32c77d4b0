import os
import signal
import sqlite3
import sys

import pytest
from support.processes import spawned

from clients.errors import OutboxError, OutboxFull
from clients.outbox import Entry, Outbox, OutboxLimits


def entry(n, size=1):
    return Entry("t", b"%d" % n * size, None)


def seqs(messages):
    return [message.seq for message in messages]


def test_seq_rises_by_one_and_survives_reopening(tmp_path):
    outbox = Outbox(tmp_path / "box")
    identity = outbox.id
    assert outbox.append([entry(1), entry(2)]) == [1, 2]
    outbox.settle(2)
    outbox.close()
    again = Outbox(tmp_path / "box")
    assert again.id == identity
    assert again.append([entry(3)]) == [3]
    assert again.oldest()[0] == 3
    again.close()


def test_reading_is_in_order_bounded_and_never_empty_handed(tmp_path):
    outbox = Outbox(tmp_path / "box")
    outbox.append([entry(n, size=1_000) for n in range(1, 8)])
    assert seqs(outbox.read(0, messages_max=3, bytes_max=10**6)) == [1, 2, 3]
    assert seqs(outbox.read(2, messages_max=100, bytes_max=2_300)) == [3, 4]
    assert seqs(outbox.read(5, messages_max=5, bytes_max=1)) == [6]
    assert outbox.read(7, messages_max=5, bytes_max=1) == []
    outbox.close()


def test_settling_is_cumulative(tmp_path):
    outbox = Outbox(tmp_path / "box")
    outbox.append([entry(n) for n in range(5)])
    outbox.settle(3)
    assert len(outbox) == 2
    assert outbox.oldest()[0] == 4
    outbox.settle(5)
    assert outbox.oldest() == (6, 0)
    outbox.close()


def test_a_second_process_is_kept_out(tmp_path):
    outbox = Outbox(tmp_path / "box")
    with pytest.raises(OutboxError, match="locked"):
        Outbox(tmp_path / "box")
    outbox.close()
    Outbox(tmp_path / "box").close()


def test_a_file_that_is_no_outbox_is_named(tmp_path):
    (tmp_path / "text").write_text("not a database, not at all, " * 100)
    with pytest.raises(OutboxError, match="text"):
        Outbox(tmp_path / "text")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(OutboxError, match="version 99"):
        Outbox(tmp_path / "newer")
    with pytest.raises(OutboxError, match="missing"):
        Outbox(tmp_path / "missing" / "box")


WRITER = """
import sys
from clients.outbox import Entry, Outbox, OutboxLimits
outbox = Outbox(sys.argv[1])
while True:
    for seq in outbox.append([Entry("t", b"1", None)] * 3):
        print(seq, flush=True)
"""


def test_what_was_reported_on_disk_survives_kill_9_and_no_seq_is_given_twice(tmp_path):
    path = tmp_path / "box"
    reported = 0
    for _ in range(3):
        with spawned([sys.executable, "-c", WRITER, str(path)]) as writer:
            heard = [int(writer.stdout.readline()) for _ in range(30)]
            assert heard[0] > reported
            reported = heard[-1]
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split("\n")
            reported = max([reported, *(int(line) for line in rest[:-1])])
    outbox = Outbox(path)
    kept = seqs(outbox.read(0, messages_max=10**6, bytes_max=10**9))
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= reported
    outbox.close()


def sized(size=2):
    return Entry("t", b"x" * size, None)


def test_full_it_refuses_what_is_new_and_keeps_what_it_has(tmp_path):
    outbox = Outbox(tmp_path / "o", OutboxLimits(messages_max=3))
    outbox.append([sized()] * 3)
    with pytest.raises(OutboxFull, match="3 messages"):
        outbox.append([sized()])
    assert len(outbox) == 3
    outbox.settle(1)
    assert outbox.append([sized()]) == [4]
    assert outbox.dropped == 0


def test_bytes_are_a_bound_too(tmp_path):
    outbox = Outbox(tmp_path / "o", OutboxLimits(bytes_max=10))
    outbox.append([sized(6)])
    with pytest.raises(OutboxFull, match="10 bytes"):
        outbox.append([sized(5)])
    outbox.append([sized(4)])
    assert outbox.bytes == 10


def test_it_can_drop_the_oldest_instead_and_counts_them(tmp_path):
    outbox = Outbox(tmp_path / "o", OutboxLimits(messages_max=20, when_full="drop_oldest"))
    outbox.append([sized()] * 20)
    outbox.append([sized()])
    assert outbox.dropped == 3, "one, and a tenth more"
    assert outbox.oldest()[0] == 4
    assert len(outbox) == 18


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
def test_age_is_a_bound_too(tmp_path, when_full):
    now = [1_000.0]
    limits = OutboxLimits(age_max_s=60, when_full=when_full)
    outbox = Outbox(tmp_path / "o", limits, clock=lambda: now[0])
    outbox.append([sized()] * 2)
    now[0] += 30
    outbox.append([sized()])
    now[0] += 31
    if when_full == "refuse":
        with pytest.raises(OutboxFull, match="60 s"):
            outbox.append([sized()])
    else:
        outbox.append([sized()])
        assert outbox.dropped == 2
        assert outbox.oldest()[0] == 3


def test_counts_survive_a_restart(tmp_path):
    outbox = Outbox(tmp_path / "o")
    outbox.append([sized(5)] * 4)
    outbox.settle(1)
    outbox.close()
    again = Outbox(tmp_path / "o")
    assert (len(again), again.bytes) == (3, 15)
