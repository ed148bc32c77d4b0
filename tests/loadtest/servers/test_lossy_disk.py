"""The disk that loses power keeps what was synced and nothing else."""

import errno
import stat

import pytest

from loadtest.servers.lossy_disk import Disk

FILE = stat.S_IFREG | 0o600
FOLDER = stat.S_IFDIR | 0o755


def after_power_loss(disk, tmp_path):
    disk.rescue(tmp_path)
    return {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }


def test_synced_bytes_survive_and_others_do_not(tmp_path):
    disk = Disk()
    file = disk.make("/a", FILE)
    disk.write(file, b"one", 0)
    disk.sync(file)
    disk.write(file, b"two", 3)
    assert bytes(file.data) == b"onetwo"
    assert after_power_loss(disk, tmp_path) == {"a": b"one"}


def test_a_file_renamed_before_it_is_synced_is_there_and_empty(tmp_path):
    disk = Disk()
    disk.write(disk.make("/new", FILE), b"text", 0)
    disk.rename("/new", "/name")
    disk.sync(disk.make("/other", FILE))
    assert after_power_loss(disk, tmp_path) == {"name": b"", "other": b""}


def test_a_name_is_lost_until_something_is_synced(tmp_path):
    disk = Disk()
    kept = disk.make("/kept", FILE)
    disk.sync(kept)
    disk.make("/lost", FILE)
    disk.remove("/kept")
    assert after_power_loss(disk, tmp_path) == {"kept": b""}


def test_a_cut_is_committed_with_the_names_and_new_bytes_are_not(tmp_path):
    disk = Disk()
    file = disk.make("/a", FILE)
    disk.write(file, b"0123456789", 0)
    disk.sync(file)
    disk.truncate(file, 4)
    disk.write(file, b"x", 6)
    disk.sync(disk.make("/other", FILE))
    assert after_power_loss(disk, tmp_path)["a"] == b"0123"


def test_folders_links_and_errors(tmp_path):
    disk = Disk()
    disk.make("/d", FOLDER)
    disk.sync(disk.make("/d/a", FILE))
    disk.link("/d/b", "/d/a")
    disk.rename("/d", "/e")
    assert sorted(disk.children("/e")) == ["a", "b"]
    assert list(disk.children("/")) == ["e"]
    for act, number in (
        (lambda: disk.node("/d/a"), "ENOENT"),
        (lambda: disk.make("/e/a", FILE), "EEXIST"),
        (lambda: disk.make("/none/a", FILE), "ENOENT"),
        (lambda: disk.remove("/e"), "ENOTEMPTY"),
    ):
        with pytest.raises(OSError) as found:
            act()
        assert found.value.errno == getattr(errno, number)
    disk.sync(disk.node("/e/a"))
    disk.rescue(tmp_path)
    again = Disk()
    again.load(tmp_path)
    assert sorted(again.children("/e")) == ["a", "b"]


def test_a_symbolic_link_is_on_the_disk_with_its_name_and_leads_on_after_a_power_loss(tmp_path):
    disk = Disk()
    file = disk.make("/file", FILE)
    disk.write(file, b"text", 0)
    disk.symlink("/kept", "file")
    disk.sync(file)
    disk.symlink("/lost", "file")
    assert after_power_loss(disk, tmp_path) == {"file": b"text", "kept": b"text"}
    again = Disk()
    again.load(tmp_path)
    assert again.node("/kept").data == b"file"
    assert stat.S_ISLNK(again.node("/kept").mode)
