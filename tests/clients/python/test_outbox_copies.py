"""Whatever copy of the file is restored, no (id, seq) ever names two messages."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.outboxes import (
    entry,
    refuse_commits,
    rows,
    rows_of,
    seqs,
    take,
)
from tidegate.bounds import OutboxLimits
from tidegate.errors import OutboxError
from tidegate.outbox import Outbox


def drain(outbox):
    """Send everything as a device does. Returns (id, seq, data) in the order of the wire."""
    sent = []
    while outbox.messages:
        run = outbox.begin()
        batch = take(outbox, run)
        assert batch, "an id without messages comes last"
        sent += [(run.id, message.seq, bytes(message.data)) for message in batch]
        outbox.settle(run.id, batch[-1].seq)
    return sent


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
    """An outbox file whose copies are restored, and every message that an (id, seq) has named."""

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
            self.outbox.remove(self.rng.choice(rows_of(self.outbox))[0])

    def beyond(self):
        self.outbox.settle(self.run.id, self.sent + self.rng.choice([0, 0, 50]))

    def fail(self):
        """A failed commit is on the disk after all, and that copy is restored."""
        book = self.outbox._ledger.book
        before = (book.messages, book.bytes, book.dropped)
        identity, first, saved, number = book.id, book.first, book.saved, book.next_number
        refuse_commits(self.outbox)
        try:
            with pytest.raises(OutboxError, match="not authorized"):
                self.outbox.append([entry(self.made)])
        finally:
            refuse_commits(self.outbox, refused=False)
        book = self.outbox._ledger.book
        assert (book.messages, book.bytes, book.dropped) == before
        if self.outbox.next_number == number or book.id == identity:
            return  # a bound refused it
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
        found = rows_of(self.outbox)
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
