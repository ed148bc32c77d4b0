import json

import pytest

from gateway.ops.errors import BadOrder
from gateway.ops.orders import (
    Subject,
    parse_disconnect,
    parse_drain,
    parse_nothing,
    parse_revoke,
    parse_steer,
    parse_unrevoke,
)
from tidegate.wire.grammar import is_token

NOW = 1_000.0
DEVICE = {"tenant": "default", "device": "veh-1"}


def revoke(document):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_revoke(body, now=NOW, is_token=is_token)


def test_a_device_or_a_credential_is_revoked_until_then():
    assert revoke({"until": 2000, **DEVICE}) == (Subject("", "default", "veh-1"), 2000.0)
    assert revoke({"until": 1000.5, "jti": "a b/c"}) == (Subject("a b/c"), 1000.5)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"[" * 100_000, ""),
        ({}, "until"),
        ({"until": 2000}, "name a jti, or a tenant and a device"),
        ({"until": 2000, "device": "veh-1"}, "name a jti"),
        ({"until": 2000, "tenant": "default"}, "name a jti"),
        ({"until": 2000, "jti": "x", **DEVICE}, "name a jti"),
        ({"until": 2000, "tenant": "default", "device": "veh 1"}, "device must match"),
        ({"until": 2000, "tenant": "a.b", "device": "veh-1"}, "tenant must match"),
        ({"until": 2000, "tenant": "default", "device": "v" * 65}, "device must match"),
        ({"until": 2000, "jti": "x" * 257}, "jti is longer than 256"),
        ({"until": 1000, **DEVICE}, "in the past"),
        ({"until": 1e300, **DEVICE}, "year 9999"),
        (b'{"until": 1e999, "jti": "x"}', ""),
        ({"until": "soon", **DEVICE}, "until"),
        (b'{"until":1,"device":"\x80"}', "utf-8"),
        ({"until": 2000, "more": 1, **DEVICE}, "more"),
    ],
)
def test_a_bad_order_names_its_offence(document, said):
    with pytest.raises(BadOrder) as caught:
        revoke(document)
    assert said in str(caught.value)


def test_undoing_names_whom_only():
    assert parse_unrevoke(b'{"jti":"x"}', is_token=is_token) == Subject("x")
    with pytest.raises(BadOrder, match="until"):
        parse_unrevoke(b'{"jti":"x","until":1}', is_token=is_token)
    with pytest.raises(BadOrder, match="device must match"):
        parse_unrevoke(b'{"tenant":"a","device":"*"}', is_token=is_token)


def test_a_drain_is_in_order_unless_it_says_now():
    assert not parse_drain(b"")
    assert not parse_drain(b"{}")
    assert parse_drain(b'{"now":true}')
    for body in (b'{"now":1}', b'{"fast":true}', b"now"):
        with pytest.raises(BadOrder):
            parse_drain(body)


def test_a_disconnect_names_a_device():
    assert parse_disconnect(json.dumps(DEVICE).encode(), is_token=is_token) == ("default", "veh-1")
    for body in (b"{}", b'{"tenant":"","device":"x"}', b'{"tenant":"a","device":"*"}'):
        with pytest.raises(BadOrder):
            parse_disconnect(body, is_token=is_token)


def test_steering_names_values_and_a_time():
    assert parse_steer(b'{"rate_per_s":200,"for_s":600}') == ({"rate_per_s": 200.0}, 600.0)
    body = b'{"rate_floor_per_s":5,"burst":1,"log_level":"debug","for_s":0.5}'
    wanted = {"rate_floor_per_s": 5.0, "burst": 1.0, "log_level": "debug"}
    assert parse_steer(body) == (wanted, 0.5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"for_s":600}',
        b'{"rate_per_s":200}',
        b'{"rate_per_s":0,"for_s":1}',
        b'{"rate_per_s":-1,"for_s":1}',
        b'{"rate_per_s":1e6,"for_s":1}',
        b'{"rate_per_s":1e999,"for_s":1}',
        b'{"rate_per_s":"200","for_s":1}',
        b'{"rate_per_s":200,"for_s":0}',
        b'{"rate_per_s":200,"for_s":604801}',
        b'{"burst":0.5,"for_s":1}',
        b'{"log_level":"loud","for_s":1}',
        b'{"nats_password":"x","for_s":1}',
    ],
)
def test_steering_beyond_its_bounds_is_refused(body):
    with pytest.raises(BadOrder):
        parse_steer(body)


def test_an_order_without_a_choice_says_nothing_else():
    parse_nothing(b"")
    parse_nothing(b"{}")
    with pytest.raises(BadOrder):
        parse_nothing(b'{"rate_per_s":1}')
