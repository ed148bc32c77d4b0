"""The data directory: one gateway uses it at a time, and only its owner can read it."""

import os
import stat
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from gateway import data_directory
from gateway.data_directory import DataDirectoryLock, make_private
from gateway.errors import DataDirectoryError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_private_and_made_private_again(tmp_path):
    directory = tmp_path / "a" / "data"
    make_private(directory)
    assert mode(directory) == 0o700
    directory.chmod(0o755)
    make_private(directory)
    assert mode(directory) == 0o700


def test_a_directory_of_everybodys_is_left_as_it_is_and_said(tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    with capture_logs() as logs:
        make_private(directory)
    assert mode(directory) == 0o1777
    assert [line["event"] for line in logs] == ["data_directory_open"]


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(DataDirectoryError, match=r"data: not a directory$"):
        make_private(tmp_path / "data")
    with pytest.raises(DataDirectoryError, match=r"below: not a directory$"):
        make_private(tmp_path / "data" / "below")


def test_a_second_is_refused_and_told_who_holds_it(tmp_path):
    first, second = DataDirectoryLock(tmp_path), DataDirectoryLock(tmp_path)
    first.acquire()
    with pytest.raises(DataDirectoryError, match=f"in use by process {os.getpid()}: stop"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    assert mode(tmp_path / "lock") == 0o600


HOLDER = """
import subprocess, sys
from pathlib import Path
from gateway.data_directory import DataDirectoryLock
DataDirectoryLock(Path(sys.argv[1])).acquire()
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_keeps_nobody_out_though_its_child_lives(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        child = int(holder.stdout.readline())
        lock = DataDirectoryLock(tmp_path)
        with pytest.raises(DataDirectoryError, match=f"process {holder.pid}"):
            lock.acquire()
        holder.kill()
        holder.wait()
        try:
            lock.acquire()
            lock.release()
        finally:
            os.kill(child, 9)


def test_a_lock_whose_name_cannot_be_written_holds(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    first, second = DataDirectoryLock(tmp_path), DataDirectoryLock(tmp_path)
    monkeypatch.setattr(data_directory.os, "pwrite", full)
    with capture_logs() as logs:
        first.acquire()
    assert [line["event"] for line in logs] == ["lock_holder_not_named"]
    with pytest.raises(DataDirectoryError, match="in use by process unknown"):
        second.acquire()
    first.release()
