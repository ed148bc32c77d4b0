"""The file of an outbox: opening, migration, and how it shrinks."""

import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest

from support.outboxes import (
    SetClocks,
    entry,
    sized,
    take,
)
from tidegate.errors import OutboxError
from tidegate.outbox import Outbox


def test_a_file_of_version_1_keeps_its_messages_and_their_id(open_box, tmp_path):
    clocks = SetClocks()
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


def test_a_second_opening_is_refused_with_a_clear_message(open_box, tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate.outbox_file._BUSY_TIMEOUT_S", 0.05)
    outbox = open_box()
    with pytest.raises(OutboxError, match="box is open already"):
        open_box()
    # The refused opening must not release the lock of the first one, as it would with POSIX locks.
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


def test_a_failed_opening_leaves_nothing_open(open_box, tmp_path):
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


def test_only_its_owner_can_read_the_file(open_box, tmp_path):
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
def test_a_removed_or_replaced_file_is_an_error(open_box, tmp_path, suffix, replaced):
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


def test_a_directory_is_refused_and_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(OutboxError):
        Outbox(str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
