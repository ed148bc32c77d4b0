"""What one process may hold is checked before anything starts, and the error says what mends it."""

import resource

import pytest

from loadtest.devices import limits
from loadtest.errors import LimitError


@pytest.fixture
def descriptors(monkeypatch):
    """The limits of a process that may open 1,000 and, if it asks, 4,000."""
    held = [(1_000, 4_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: held[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limit: held.append(limit))
    return held


def test_the_soft_limit_is_raised_as_far_as_needed(descriptors):
    limits.require_descriptors(900)
    assert descriptors == [(1_000, 4_000)]
    limits.require_descriptors(3_000)
    assert descriptors[-1] == (3_000, 4_000)
    limits.take_all_descriptors()
    assert descriptors[-1] == (4_000, 4_000)


def test_more_than_the_hard_limit_is_an_error_with_the_command(descriptors):
    with pytest.raises(LimitError, match="5,000 file descriptors are needed and 4,000 are allowed"):
        limits.require_descriptors(5_000)
    assert len(descriptors) == 1


def test_local_ports_are_counted_for_each_gateway(tmp_path, monkeypatch):
    ports = tmp_path / "range"
    ports.write_text("32768\t60999\n")
    monkeypatch.setattr(limits, "_PORT_RANGE", ports)
    limits.require_ports(23_000, 1)
    limits.require_ports(46_000, 2)
    with pytest.raises(LimitError, match="sysctl -w"):
        limits.require_ports(24_000, 1)
    ports.unlink()
    limits.require_ports(1_000_000, 1)
