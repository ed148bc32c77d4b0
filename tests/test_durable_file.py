import os
import stat

import pytest

from gateway import durable_file


def test_a_replaced_file_is_whole_private_and_alone(tmp_path):
    path = tmp_path / "deep" / "file"
    durable_file.replace(path, "old")
    durable_file.replace(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_the_first_to_create_wins(tmp_path):
    path = tmp_path / "file"
    durable_file.create(path, "first")
    durable_file.create(path, "second")
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_refuses_leaves_what_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    durable_file.replace(path, "old")

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        durable_file.replace(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    path = tmp_path / "file"
    done = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(os, "link", lambda *args: (done.append("name"), link(*args))[1])
    durable_file.create(path, "text")
    assert done == ["sync", "name", "sync"]
