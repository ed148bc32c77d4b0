import pytest

from gateway.ops.hosts import HostRule

RULE = HostRule(["Gate-1.internal"])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:9090", "10.1.2.3:80", "[::1]", "[::1]:9090", "[2001:db8::7]",
        "localhost", "LOCALHOST:9090", "localhost.", "gate-1.internal", "gate-1.INTERNAL.:9090",
        "127.0.0.1:",
    ],
)  # fmt: skip
def test_what_cannot_be_rebound_or_is_configured_is_good(host):
    assert RULE.allows(host)


@pytest.mark.parametrize(
    "host",
    [
        "", ":9090", "attacker.example", "attacker.example:9090", "127.0.0.1.attacker.example",
        "localhost.attacker.example", "xlocalhost", "[::1", "::1", "[127.0.0.1]", "127.1",
        "2130706433", "127.0.0.1:80:80", "127.0.0.1:x", "127.0.0.1:\u0664", "user@127.0.0.1",
        "gate-1.internal.evil", "internal",
    ],
)  # fmt: skip
def test_any_other_name_is_refused(host):
    assert not RULE.allows(host)


def test_without_names_localhost_and_addresses_remain():
    assert HostRule([]).allows("localhost:1")
    assert HostRule([]).allows("192.0.2.1")
    assert not HostRule([]).allows("gate-1.internal")
