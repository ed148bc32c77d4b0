import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.children import spawned
from tidegate.bounds import OutboxLimits
from tidegate.elapsed import Uptime
from tidegate.errors import OutboxError, OutboxFull
from tidegate.outbox import Entry, Outbox

DAY_S = 86_400


class Clocks:
    """A wall clock and a time since boot, set by the test."""

    def __init__(self, wall_s=1_800_000_000.0, boot="one"):
        self.wall_s = wall_s
        self.up_s = 100.0
        self.boot = boot

    def uptime(self):
        return Uptime(self.boot, int(self.up_s * 1000))

    def pass_s(self, seconds):
        self.wall_s += seconds
        self.up_s += seconds

    def reboot(self, off_s, wall_s=None):
        self.wall_s = self.wall_s + off_s if wall_s is None else wall_s
        self.boot, self.up_s = self.boot + "+", 5.0


@pytest.fixture
def open_box(tmp_path):
    """Opens outboxes of this test, and closes them after it."""
    opened = []

    def open_it(name="box", limits=None, clocks=None):
        clocks = clocks or Clocks()
        outbox = Outbox(tmp_path / name, limits, clock=lambda: clocks.wall_s, uptime=clocks.uptime)
        opened.append(outbox)
        return outbox

    yield open_it
    for outbox in opened:
        outbox.close()


def entry(n=1, size=1):
    return Entry("t", b"%d" % n * size, None)


def sized(size=2):
    return Entry("t", b"x" * size, None)


def seqs(messages):
    return [message.seq for message in messages]


def take(outbox, run, after=None, messages_max=1_000):
    after = run.oldest - 1 if after is None else after
    return outbox.read(run.id, after, messages_max=messages_max, bytes_max=10**9)


def drain(outbox):
    """What a device does with everything it has: (id, seq, data) in the order of the wire."""
    sent = []
    while outbox.messages:
        run = outbox.begin()
        batch = take(outbox, run)
        assert batch, "an id without messages comes last"
        sent += [(run.id, message.seq, bytes(message.data)) for message in batch]
        outbox.settle(run.id, batch[-1].seq)
    return sent


# Numbers, ids and seqs


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


def test_an_opening_without_a_message_leaves_no_trace(open_box, tmp_path):
    for _ in range(3):
        outbox = open_box()
        outbox.begin()
        outbox.close()
    database = sqlite3.connect(tmp_path / "box")
    assert database.execute("SELECT count(*) FROM ids").fetchone() == (0,)
    database.close()


def test_what_read_gave_out_counts_as_sent(open_box):
    outbox = open_box()
    outbox.append([entry(n) for n in range(5)])
    run = outbox.begin()
    take(outbox, run, messages_max=3)
    assert outbox.begin().sent == 3, "a session that was lost may have sent it"
    outbox.settle(run.id, 5)
    assert outbox.begin().sent == 3


def test_reading_is_in_order_bounded_and_never_empty_handed(open_box):
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


def test_a_seq_beyond_what_was_given_settles_its_id_and_ends_it(open_box):
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


def test_a_file_of_version_1_keeps_its_messages_and_their_id(open_box, tmp_path):
    clocks = Clocks()
    database = sqlite3.connect(tmp_path / "box")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE outbox (id TEXT NOT NULL, next_seq INTEGER NOT NULL)")
    database.execute(
        "CREATE TABLE messages (seq INTEGER PRIMARY KEY, type TEXT NOT NULL,"
        " data BLOB NOT NULL, time TEXT, added_ms INTEGER NOT NULL)"
    )
    database.execute("INSERT INTO outbox VALUES ('old', 8)")
    ages_s = {5: clocks.wall_s, 6: 3_600, 7: -50}
    for seq, age_s in ages_s.items():
        added_ms = int((clocks.wall_s - age_s) * 1000)
        database.execute("INSERT INTO messages VALUES (?, 't', '1', NULL, ?)", (seq, added_ms))
    database.execute("PRAGMA user_version=1")
    database.commit()
    database.close()

    outbox = open_box(clocks=clocks)
    assert outbox.append([entry(2)]) == [8]
    run = outbox.begin()
    assert (run.id, run.oldest, run.last, run.sent) == ("old", 5, 7, 7)
    assert run.age_ms == 0, "a time of 1970 was never right"
    outbox.settle("old", 5)
    assert outbox.begin().age_ms == 3_600_000
    outbox.settle("old", 6)
    assert outbox.begin().age_ms == 0
    outbox.settle("old", 7)
    assert (outbox.begin().oldest, outbox.begin().number(1)) == (1, 8)


def test_that_the_gateways_announce_features_is_remembered(open_box):
    outbox = open_box()
    assert not outbox.gateway_has_features
    outbox.remember_features(True)
    outbox.close()
    outbox = open_box()
    assert outbox.gateway_has_features
    outbox.remember_features(False)
    outbox.close()
    assert not open_box().gateway_has_features


# Never one (id, seq) for two messages

STEPS = st.sampled_from(
    3 * ["append"]
    + 2 * ["settle", "read", "copy", "restore"]
    + ["begin", "reopen", "remove", "fail", "beyond"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(STEPS, min_size=5, max_size=40),
    seed=st.integers(0, 2**32),
    when_full=st.sampled_from(["refuse", "drop_oldest"]),
)
def test_no_copy_of_the_file_gives_an_id_and_seq_to_two_messages(
    tmp_path_factory, steps, seed, when_full
):
    world = World(tmp_path_factory.mktemp("w"), random.Random(seed), when_full)
    for step in steps:
        getattr(world, step)()
        world.check()
    world.finish()


class World:
    """An outbox file whose copies come back, and all that was ever named by an (id, seq)."""

    def __init__(self, directory, rng, when_full):
        self.path = directory / "box"
        self.kept = directory / "copy"
        self.rng = rng
        self.limits = OutboxLimits(messages_max=12, when_full=when_full)
        self.named = {}
        self.made = 0
        self.copied = False
        self.outbox = Outbox(self.path, self.limits)
        self.begin()

    def append(self):
        entries = [entry(self.made + n) for n in range(self.rng.randint(1, 15))]
        self.made += len(entries)
        before = self.outbox.next_number
        numbers = [n for n in self.outbox.append(entries) if isinstance(n, int)]
        assert numbers == list(range(before, before + len(numbers)))
        if numbers:
            assert self.outbox.messages <= 12

    def begin(self):
        self.run = self.outbox.begin()
        self.sent = self.run.oldest - 1

    def read(self):
        batch = take(self.outbox, self.run, self.sent, messages_max=self.rng.randint(1, 8))
        if batch and batch[0].seq == self.sent + 1:
            self.sent = batch[-1].seq
            assert seqs(batch) == list(range(batch[0].seq, self.sent + 1))
        else:
            self.begin()

    def settle(self):
        self.outbox.settle(self.run.id, self.rng.randint(self.run.oldest - 1, self.sent))

    def remove(self):
        if self.outbox.messages:
            self.outbox.remove(self.rng.choice(rows(self.outbox._file.database))[0])

    def beyond(self):
        self.outbox.settle(self.run.id, self.sent + self.rng.choice([0, 0, 50]))

    def fail(self):
        """A commit that failed is on the disk after all: that copy comes back."""
        book = self.outbox._ledger.book
        before = (book.messages, book.bytes, book.dropped)
        identity, first, saved, number = book.id, book.first, book.saved, book.next_number
        self.outbox._file.database.set_authorizer(
            lambda action, word, *_: action == sqlite3.SQLITE_TRANSACTION and word == "COMMIT"
        )
        try:
            with pytest.raises(OutboxError, match="not authorized"):
                self.outbox.append([entry(self.made)])
        finally:
            self.outbox._file.database.set_authorizer(None)
        book = self.outbox._ledger.book
        assert (book.messages, book.bytes, book.dropped) == before
        if self.outbox.next_number == number or book.id == identity:
            return  # it was refused for a bound
        self.copy()
        disk = sqlite3.connect(self.kept)
        if not saved:
            disk.execute("INSERT INTO ids VALUES (?, ?)", (first, identity))
        data = entry(self.made).data
        disk.execute("INSERT INTO messages VALUES (?, 't', ?, NULL, 0)", (number, data))
        disk.execute("UPDATE state SET next_number = ?", (number + 1,))
        disk.commit()
        disk.execute("PRAGMA journal_mode=WAL")
        self.made += 1
        self.note(rows(disk))
        disk.close()
        Path(f"{self.kept}-wal").touch()

    def copy(self):
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{self.kept}{suffix}")
        self.copied = True

    def restore(self):
        if self.copied:
            self.outbox.close()
            for suffix in ("", "-wal"):
                shutil.copy(f"{self.kept}{suffix}", f"{self.path}{suffix}")
            self.outbox = Outbox(self.path, self.limits)
            self.begin()

    def reopen(self):
        self.outbox.close()
        self.outbox = Outbox(self.path, self.limits)
        self.begin()

    def check(self):
        found = rows(self.outbox._file.database)
        self.note(found)
        assert all(row[0] > self.outbox.settled for row in found)
        assert self.outbox.messages == len(found)
        assert self.outbox.bytes == sum(len(row[-1]) for row in found)
        assert [row[-1] for row in found] == sorted((row[-1] for row in found), key=int)

    def note(self, found):
        for _number, identity, seq, data in found:
            assert self.named.setdefault((identity, seq), data) == data

    def finish(self):
        sent = drain(self.outbox)
        for identity, seq, data in sent:
            assert self.named[identity, seq] == data
        self.outbox.close()


def rows(database):
    """Everything in the file: (number, id, seq, data)."""
    return database.execute(
        "SELECT number, id, number - first + 1, data FROM messages JOIN ids ON first ="
        " (SELECT max(first) FROM ids WHERE first <= number) ORDER BY number"
    ).fetchall()


# The file


def test_a_second_opening_is_refused_in_the_words_of_the_matter(open_box, tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate.outbox_file._BUSY_TIMEOUT_S", 0.05)
    outbox = open_box()
    with pytest.raises(OutboxError, match="box is open already"):
        open_box()
    # The refused opening must not have released the lock of the first (POSIX locks would be).
    code = (
        "import sys; from tidegate import outbox, outbox_file; outbox_file._BUSY_TIMEOUT_S = 0.05;"
        "outbox.Outbox(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "box")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is open already" in done.stderr
    outbox.close()
    open_box().close()


def test_an_opening_that_fails_holds_nothing(open_box, tmp_path):
    (tmp_path / "text").write_text("not a database, not at all, " * 100)
    with pytest.raises(OutboxError, match="text is no outbox"):
        open_box("text")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(OutboxError, match="version 99"):
        open_box("newer")
    newer = sqlite3.connect(tmp_path / "newer", timeout=0)
    newer.execute("PRAGMA user_version=0")
    newer.execute("CREATE TABLE state (x)")
    newer.close()
    with pytest.raises(OutboxError, match="newer"):
        open_box("newer")
    (tmp_path / "newer").unlink()
    with pytest.raises(OutboxError, match="missing"):
        open_box("missing/box")
    open_box("newer").append([entry()])


def test_its_owner_alone_can_read_it(open_box, tmp_path):
    def modes():
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    outbox = open_box()
    outbox.append([entry()])
    assert modes() == {"box": 0o600, "box-wal": 0o600}
    outbox.close()
    (tmp_path / "box").chmod(0o644)
    outbox = open_box()
    outbox.append([entry()])
    assert modes() == {"box": 0o600, "box-wal": 0o600}


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_or_replaced_is_noticed(open_box, tmp_path, suffix, replaced):
    outbox = open_box()
    outbox.append([entry()])
    (tmp_path / f"box{suffix}").rename(tmp_path / "away")
    if replaced:
        shutil.copy(tmp_path / "away", f"{tmp_path}/box{suffix}")
    word = "replaced" if replaced else "removed"
    with pytest.raises(OutboxError, match=f"box was {word}"):
        outbox.append([entry()])
    with pytest.raises(OutboxError, match=word):
        outbox.tend()
    assert len(take(outbox, outbox.begin())) == 1, "what is there can still be sent"


def test_the_file_shrinks_after_it_was_drained_in_bounded_steps(open_box, tmp_path):
    outbox = open_box()
    for _ in range(40):
        outbox.append([sized(50_000)] * 20)
    run = outbox.begin()
    outbox.settle(run.id, 800)
    size = (tmp_path / "box").stat().st_size
    assert size > 35_000_000
    steps = 1
    while outbox.tend():
        steps += 1
    assert 8 < steps < 15, "4 MiB a step"
    assert (tmp_path / "box").stat().st_size < 2_000_000
    assert (tmp_path / "box-wal").stat().st_size < 2_000_000
    outbox.append([sized(50_000)] * 400)
    outbox.settle(run.id, 1_200)
    outbox.close()
    assert (tmp_path / "box").stat().st_size < 2_000_000


def test_a_busy_file_keeps_its_free_room(open_box):
    outbox = open_box()
    outbox.append([sized(50_000)] * 100)
    outbox.settle(outbox.begin().id, 40)
    assert not outbox.tend()


def test_a_migrated_file_can_shrink_too(open_box, tmp_path):
    database = sqlite3.connect(tmp_path / "box")
    database.execute("CREATE TABLE outbox (id TEXT NOT NULL, next_seq INTEGER NOT NULL)")
    database.execute(
        "CREATE TABLE messages (seq INTEGER PRIMARY KEY, type TEXT NOT NULL,"
        " data BLOB NOT NULL, time TEXT, added_ms INTEGER NOT NULL)"
    )
    database.execute("INSERT INTO outbox VALUES ('old', 1)")
    database.execute("PRAGMA user_version=1")
    database.commit()
    database.close()
    outbox = open_box()
    outbox.append([sized(50_000)] * 200)
    outbox.settle(outbox.begin().id, 200)
    while outbox.tend():
        pass
    assert (tmp_path / "box").stat().st_size < 2_000_000


def refuse_writing(outbox, refused=True):
    """The disk is full, as far as SQLite can tell: no page may be added."""
    pages = outbox._file.database.execute("PRAGMA page_count").fetchone()[0] if refused else 2**30
    outbox._file.database.execute(f"PRAGMA max_page_count={pages}").fetchone()


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


def test_what_a_failed_commit_gave_is_never_given_again(open_box):
    outbox = open_box()
    outbox.append([entry()] * 3)
    run = outbox.begin()
    outbox._file.database.set_authorizer(
        lambda action, word, *_: action == sqlite3.SQLITE_TRANSACTION and word == "COMMIT"
    )
    with pytest.raises(OutboxError):
        outbox.append([entry()] * 10)
    outbox._file.database.set_authorizer(None)
    assert (outbox.messages, outbox.bytes, outbox.settled) == (3, 3, 0)
    assert outbox.append([entry()]) == [14]
    assert seqs(take(outbox, run)) == [1, 2, 3]
    outbox.settle(run.id, 3)
    following = outbox.begin()
    assert following.id != run.id, "the seqs of the old one may be on the disk"
    assert following.number(1) == 14


def deny_deleting(outbox, denied=True):
    outbox._file.database.set_authorizer(
        (lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_DELETE else 0)
        if denied
        else None
    )


def test_a_settle_the_disk_refused_is_owed_and_made_good(open_box):
    outbox = open_box()
    outbox.append([entry(n) for n in range(5)])
    run = outbox.begin()
    take(outbox, run)
    deny_deleting(outbox)
    with pytest.raises(OutboxError):
        outbox.settle(run.id, 3)
    assert (outbox.messages, outbox.settled) == (5, 3)
    with pytest.raises(OutboxError):
        outbox.tend()
    again = outbox.begin()
    assert (again.oldest, seqs(take(outbox, again))) == (4, [4, 5])
    deny_deleting(outbox, denied=False)
    outbox.tend()
    assert (outbox.messages, outbox.settled) == (2, 3)
    outbox.settle(run.id, 5)
    assert (outbox.messages, outbox.settled) == (0, 5)


def test_closing_twice_and_using_it_closed(open_box):
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


def test_what_was_reported_on_disk_survives_kill_9(open_box, tmp_path):
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
    names = [(identity, seq) for _number, identity, seq, _data in rows(outbox._file.database)]
    assert len(set(names)) == len(names)
    assert len({identity for identity, _seq in names}) == 3


# Bounds


def test_full_it_refuses_what_is_new_and_keeps_what_it_has(open_box):
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


def test_bytes_are_a_bound_too(open_box):
    outbox = open_box(limits=OutboxLimits(bytes_max=10))
    outbox.append([sized(6)])
    too_much, fits = outbox.append([sized(5), sized(4)])
    assert isinstance(too_much, OutboxFull)
    assert "10 bytes" in str(too_much)
    assert fits == 2
    assert outbox.bytes == 10


def test_it_can_drop_the_oldest_instead_and_counts_them(open_box):
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
    assert [row[0] for row in rows(outbox._file.database)] == list(range(496, 506))
    assert outbox.bytes == 20


def test_seqs_begin_at_1_also_if_the_first_messages_never_came_in(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=3, when_full="drop_oldest"))
    said = outbox.begin()
    assert outbox.append([sized()] * 5) == [1, 2, 3, 4, 5]
    run = outbox.begin()
    assert run.id != said.id, "a session may have said hello for the old one"
    assert (run.oldest, run.last, run.number(1)) == (1, 3, 3)
    assert seqs(take(outbox, run)) == [1, 2, 3]


def test_dropping_holds_in_bytes(open_box):
    limits = OutboxLimits(bytes_max=100, when_full="drop_oldest")
    outbox = open_box(limits=limits)
    outbox.append([sized(30)] * 3)
    results = outbox.append([sized(101), sized(40), sized(50), sized(45)])
    assert isinstance(results[0], OutboxFull), "it fits no outbox of this size"
    assert results[1:] == [4, 5, 6]
    assert [row[0] for row in rows(outbox._file.database)] == [5, 6]
    assert (outbox.bytes, outbox.dropped) == (95, 4)


def test_what_is_on_its_way_is_not_dropped_and_what_follows_the_hole_gets_a_fresh_id(open_box):
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


def test_if_all_that_follows_is_dropped_the_next_message_gets_the_fresh_id(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=10, when_full="drop_oldest"))
    outbox.append([entry(n) for n in range(1, 11)])
    run = outbox.begin()
    take(outbox, run, messages_max=4)
    outbox.append([entry(n) for n in range(11, 17)])
    assert [row[0] for row in rows(outbox._file.database)] == [1, 2, 3, 4, 11, 12, 13, 14, 15, 16]
    outbox.settle(run.id, 4)
    assert (outbox.begin().oldest, outbox.begin().number(1)) == (1, 11)


def test_with_everything_on_its_way_the_newest_is_kept(open_box):
    outbox = open_box(limits=OutboxLimits(messages_max=3, when_full="drop_oldest"))
    outbox.append([entry()] * 3)
    run = outbox.begin()
    take(outbox, run)
    assert outbox.append([entry()]) == [4]
    assert (outbox.messages, outbox.dropped) == (3, 1)
    assert seqs(take(outbox, run, after=3)) == [4], "the session goes on"
    outbox.settle(run.id, 4)
    assert outbox.messages == 0


def test_a_hole_in_what_may_have_been_sent_is_shown_to_the_session(open_box):
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


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
def test_age_is_a_bound_too(open_box, when_full):
    clocks = Clocks()
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
    clocks = Clocks()
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
    clocks = Clocks(wall_s=0.0)
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
    clocks = Clocks()
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


def test_what_cannot_be_sent_comes_by_itself_and_can_be_removed(open_box):
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


def test_several_that_cannot_be_sent_in_a_row(open_box):
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
