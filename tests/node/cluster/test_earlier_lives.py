"""Fences rise across restarts, whatever the wall clock says, and earlier lives have names."""

from gateway.cluster.fences import Fences
from gateway.node.cluster.earlier_lives import EarlierLives

HOUR_S = 3_600.0


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def life(directory, name, now, *, alone=True):
    clock = Clock(now)
    fences = Fences(clock)
    lives = EarlierLives(directory, name, fences, alone=alone)
    lives.begin()
    return clock, fences, lives


def test_after_a_restart_with_a_clock_set_back_fences_are_higher(tmp_path):
    _clock, fences, _lives = life(tmp_path, "a", 10 * HOUR_S)
    last = fences.next()
    _clock, fences, _lives = life(tmp_path, "b", 9 * HOUR_S)
    assert fences.next() > last


def test_a_fleet_goes_by_its_own_time(tmp_path):
    life(tmp_path, "a", 10 * HOUR_S)
    _clock, fences, _lives = life(tmp_path, "b", 9 * HOUR_S, alone=False)
    assert fences.next() == int(9 * HOUR_S * 1e6)


def test_the_names_of_earlier_lives_are_known_until_their_devices_are_offline(tmp_path):
    life(tmp_path, "a", 0.0)
    _clock, _fences, lives = life(tmp_path, "b", 0.0)
    assert lives.names == {"a"}
    _clock, _fences, lives = life(tmp_path, "c", 0.0)
    assert lives.names == {"a", "b"}
    lives.ended({"a", "b"})
    assert lives.names == frozenset()
    _clock, _fences, lives = life(tmp_path, "d", 0.0)
    assert lives.names == {"c"}


def test_a_worker_shares_its_directory_and_takes_no_other_worker_for_its_past(tmp_path):
    life(tmp_path, "a", 0.0)
    _clock, _fences, lives = life(None, "b", 0.0, alone=False)
    assert lives.names == frozenset()
    _clock, _fences, lives = life(tmp_path, "c", 0.0)
    assert lives.names == {"a"}


def test_a_damaged_file_is_said_and_replaced(tmp_path):
    (tmp_path / "lives.json").write_text("no json")
    _clock, fences, lives = life(tmp_path, "a", 1.0)
    assert lives.names == frozenset()
    assert fences.next() == 1_000_000
    _clock, _fences, lives = life(tmp_path, "b", 1.0)
    assert lives.names == {"a"}
