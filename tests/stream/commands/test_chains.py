"""What a device sends right after a command of a rule goes on with the rule's chain."""

import pytest

from gateway.events import hops
from gateway.stream.commands import chains as module
from gateway.stream.commands.chains import HOPS_HEADER, Chains

KEY = ("acme", "veh-7")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def chains(clock):
    return Chains(1.0, clock)


def headers(count):
    return b"NATS/1.0\r\nTidegate-Hops:%b\r\n\r\n" % str(count).encode()


def marks(message_type, data):
    return b"Mark:" + data + b"\r\n"


def test_the_header_is_that_which_rules_read():
    assert HOPS_HEADER == hops.HOPS_HEADER


def test_without_a_command_nothing_is_marked(chains):
    assert not chains
    assert chains.marking(KEY, None) is None
    assert chains.marking(KEY, marks) is marks


def test_what_comes_after_a_command_has_its_count(chains):
    chains.commanded(KEY, headers(3))
    assert chains
    assert chains.marking(KEY, None)("t", b"{}") == b"Tidegate-Hops:3\r\n"
    assert chains.marking(KEY, marks)("t", b"1") == b"Tidegate-Hops:3\r\nMark:1\r\n"
    assert chains.marking(("acme", "veh-8"), None) is None


def test_the_count_is_forgotten_after_a_while(chains, clock):
    chains.commanded(KEY, headers(3))
    clock.now += 0.9
    chains.commanded(("acme", "veh-8"), headers(1))
    clock.now += 0.1
    assert chains.marking(KEY, None) is None
    assert len(chains) == 1
    clock.now += 1.0
    assert chains.marking(KEY, None) is None
    assert not chains


def test_of_two_commands_the_longer_chain_counts(chains, clock):
    chains.commanded(KEY, headers(5))
    chains.commanded(KEY, headers(2))
    assert chains.marking(KEY, None)("t", b"") == b"Tidegate-Hops:5\r\n"
    clock.now += 1.0
    chains.commanded(KEY, headers(1))
    assert chains.marking(KEY, None)("t", b"") == b"Tidegate-Hops:1\r\n"


@pytest.mark.parametrize("count", ["", "x", "-1", "99999"])
def test_a_command_without_a_count_begins_no_chain(chains, count):
    chains.commanded(KEY, headers(count))
    assert not chains


def test_nothing_is_remembered_where_that_is_switched_off(clock):
    chains = Chains(0.0, clock)
    chains.commanded(KEY, headers(3))
    assert not chains


def test_the_devices_are_bounded(chains, monkeypatch):
    monkeypatch.setattr(module, "DEVICES_MAX", 3)
    for number in range(5):
        chains.commanded(("acme", f"veh-{number}"), headers(1))
    assert len(chains) == 3
    assert chains.marking(("acme", "veh-4"), None) is not None
