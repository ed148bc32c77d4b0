"""Tokens, roles, loopback and failed attempts, without sockets."""

import hashlib

import pytest
from multidict import CIMultiDict

from gateway.ops.access import (
    ADDRESSES_MAX,
    FAILURE_EVERY_S,
    FAILURES_BURST,
    TOKENS_MAX,
    Access,
    Role,
    parse_tokens,
)
from gateway.ops.errors import BadTokenFile, Denied

OPERATE = "operate-" + "x" * 24
READ = "read-" + "y" * 24
EXPIRING = "expiring-" + "z" * 24
FILE = f"""
# operators
alice operate {OPERATE}   # the first
wall  read    sha256:{hashlib.sha256(READ.encode()).hexdigest()}
temp  operate {EXPIRING} 2026-11-26T01:00:00+00:00
"""
BEFORE, AFTER = 1_795_654_799.0, 1_795_654_800.0


class Desk:
    """An access with a clock of the test."""

    def __init__(self, text=FILE, wall=BEFORE):
        self.now = 1_000.0
        self.wall = wall
        tokens = None if text is None else parse_tokens(text)
        self.access = Access(tokens, wall=lambda: self.wall, clock=lambda: self.now)

    def judge(self, token=None, role=Role.OPERATE, peer="10.0.0.1", **headers):
        shown = {"authorization": f"Bearer {token}"} if token is not None else {}
        return self.access.judge(role, CIMultiDict({**shown, **headers}), peer)

    def denied(self, *args, **kwargs):
        with pytest.raises(Denied) as caught:
            self.judge(*args, **kwargs)
        return caught.value.status, caught.value.error


def test_a_token_is_good_for_its_role_and_what_that_includes():
    desk = Desk()
    assert desk.judge(OPERATE) == "alice"
    assert desk.judge(OPERATE, Role.READ) == "alice"
    assert desk.judge(READ, Role.READ) == "wall"
    assert desk.denied(READ, Role.OPERATE) == (403, "role")


def test_a_token_is_good_until_it_expires():
    desk = Desk()
    assert desk.judge(EXPIRING) == "temp"
    desk.wall = AFTER
    assert desk.denied(EXPIRING) == (401, "token_expired")


@pytest.mark.parametrize(
    "shown",
    ["", "x", OPERATE[:-1], OPERATE + "x", OPERATE.upper(), "alice", "é" * 30, "\udcff" * 30],
)
def test_no_other_text_is_a_token(shown):
    assert Desk().denied(shown) == (401, "token_wrong")


def test_a_token_must_come_as_bearer():
    desk = Desk()
    assert desk.denied(authorization=f"Basic {OPERATE}") == (401, "token_wrong")
    assert desk.denied(authorization=OPERATE) == (401, "token_wrong")
    assert desk.denied() == (401, "token_missing")
    assert desk.judge(authorization=f"bearer  {OPERATE} ") == "alice"


def test_with_a_token_file_loopback_alone_is_not_enough():
    assert Desk().denied(peer="127.0.0.1") == (401, "token_missing")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_a_token_file_this_machine_may_do_everything(peer):
    assert Desk(None).judge(peer=peer) == "loopback"


@pytest.mark.parametrize("peer", ["10.0.0.1", "::", "fe80::1%lo", "::ffff:10.0.0.1", "", "unix"])
def test_without_a_token_file_other_machines_may_do_nothing(peer):
    assert Desk(None).denied(peer=peer) == (403, "not_loopback")
    assert Desk(None).denied(OPERATE, Role.READ, peer) == (403, "not_loopback")


@pytest.mark.parametrize("name", ["Forwarded", "x-forwarded-for", "X-Real-IP", "via"])
def test_a_proxy_on_this_machine_forwards_for_others(name):
    assert Desk(None).denied(peer="127.0.0.1", **{name: "x"}) == (403, "not_loopback")


def test_an_address_may_show_a_bounded_number_of_wrong_tokens():
    desk = Desk()
    for _ in range(FAILURES_BURST):
        assert desk.denied("wrong") == (401, "token_wrong")
    with pytest.raises(Denied) as caught:
        desk.judge(OPERATE)
    assert (caught.value.status, caught.value.retry_s) == (429, FAILURE_EVERY_S)
    assert desk.judge(OPERATE, peer="10.0.0.2") == "alice"
    desk.now += FAILURE_EVERY_S / 2
    with pytest.raises(Denied) as caught:
        desk.judge("wrong")
    assert caught.value.retry_s == FAILURE_EVERY_S / 2, "an attempt meanwhile prolongs nothing"
    desk.now += FAILURE_EVERY_S / 2
    assert desk.denied("wrong") == (401, "token_wrong")
    assert desk.denied(OPERATE) == (429, "attempts")
    desk.now += FAILURES_BURST * FAILURE_EVERY_S
    for _ in range(FAILURES_BURST):
        assert desk.denied("wrong") == (401, "token_wrong")


def test_what_shows_no_token_is_no_attempt():
    desk = Desk()
    for _ in range(2 * FAILURES_BURST):
        assert desk.denied() == (401, "token_missing")
    assert desk.judge(OPERATE) == "alice"


def test_an_owner_of_ipv6_addresses_counts_once():
    desk = Desk()
    for number in range(FAILURES_BURST):
        desk.denied("wrong", peer=f"2001:db8::{number:x}")
    assert desk.denied("wrong", peer="2001:db8::ffff") == (429, "attempts")
    assert desk.denied("wrong", peer="2001:db8:0:1::1") == (401, "token_wrong")


def test_the_addresses_that_are_counted_are_bounded():
    desk = Desk()
    for _ in range(FAILURES_BURST):
        desk.denied("wrong", peer="9.9.9.9")
    for number in range(ADDRESSES_MAX - 1):
        desk.denied("wrong", peer=f"10.1.{number // 256}.{number % 256}")
    assert desk.denied("wrong", peer="9.9.9.9") == (429, "attempts")
    desk.denied("wrong", peer="10.2.0.0")
    assert desk.denied("wrong", peer="9.9.9.9") == (401, "token_wrong"), "it was forgotten"


def test_new_tokens_replace_the_old():
    desk = Desk()
    desk.access.replace(parse_tokens("bob operate " + "b" * 24))
    assert desk.judge("b" * 24) == "bob"
    assert desk.denied(OPERATE) == (401, "token_wrong")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("# nobody\n\n", "holds no token"),
        ("alice operate", "line 1: must be `name role token [expires]`"),
        (f"\na operate {OPERATE} 2027-01-01T00:00:00Z x", "line 2: must be"),
        (f"a admin {OPERATE}", "the role must be read or operate"),
        (f"a:b read {OPERATE}", "the name must match"),
        ("a read short", "24 to 512 characters"),
        ("a read " + "x" * 513, "24 to 512 characters"),
        ("a read " + "é" * 24, "letters, digits"),
        ("a read sha256:abcd", "64 hexadecimal digits"),
        ("a read sha256:xyz", "non-hexadecimal"),
        (f"a read {OPERATE} tomorrow", "Invalid isoformat"),
        (f"a read {OPERATE} 2027-01-01T00:00:00", "must name its zone"),
        (f"a read {OPERATE}\na read {READ}", "two lines have the same name"),
        (f"a read {OPERATE}\nb read {OPERATE}", "two lines have the same token"),
        (
            "\n".join(f"u{n} read {'t' * 24}{n}" for n in range(TOKENS_MAX + 1)),
            f"{TOKENS_MAX} is the most",
        ),
    ],
)
def test_a_bad_token_file_names_its_offence_and_no_token(text, said):
    with pytest.raises(BadTokenFile) as caught:
        parse_tokens(text)
    assert said in str(caught.value)
    assert OPERATE not in str(caught.value)
