"""The memory of forms compared with the full parser."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.heads import judged
from gateway.edge.opening.handshake import Upgrade
from gateway.edge.opening.known_heads import KnownHeads
from gateway.edge.opening.petition import Petition
from support.stranger_heads import HEAD

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
PLAIN = HEAD
WITHOUT_TICKET = PLAIN.replace(b"Tidegate-Ticket: tick\r\n", b"")


def knowing(*heads):
    known = KnownHeads()
    for head in heads:
        known.learn(head, *judged(head))
    return known


def test_a_head_of_a_known_form_is_read_and_answered_as_by_the_full_parser():
    known = knowing(PLAIN)
    other = PLAIN.replace(KEY, b"/" * 21 + b"A==").replace(b"a.b.c", b"dd.e-_.f")
    other = other.replace(b": tick", b": other")
    assert known.read(other) == judged(other)
    assert known.read(other)[0] == Petition("dd.e-_.f", "other")
    assert known.read(WITHOUT_TICKET) is None, "another form"


def test_the_answer_is_that_of_rfc_6455_section_1_3():
    _petition, upgrade = knowing(PLAIN).read(PLAIN)
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in upgrade.response


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (KEY, b"AAAA"),
        (b"Bearer a.b.c", b"Bearer "),
        (b"a.b.c", b"a b"),
        (b"a.b.c", b"a:b"),
        (b": tick", b": t,t"),
        (b"Host: x", b"Host: y"),
        (b"Host: x", b"Host: x\r\nAuthorization: Bearer d.e.f"),
        (b"Authorization", b"authorization"),
    ],
)
def test_any_other_head_is_left_to_the_full_parser(old, new):
    assert old in PLAIN
    assert knowing(PLAIN).read(PLAIN.replace(old, new)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Authorization", b"authorization"),
        (b"Sec-WebSocket-Key", b"sec-websocket-key"),
        (b"Tidegate-Ticket", b"tidegate-ticket"),
    ],
)
def test_a_form_is_learned_only_where_the_cut_finds_the_petition(old, new):
    assert len(knowing(PLAIN.replace(old, new))) == 0


def test_a_form_with_two_tickets_is_not_learned():
    """The full parser takes several tickets for none. One of them may be empty."""
    head = PLAIN.replace(b": tick\r\n", b": \r\nTidegate-Ticket: t t\r\n")
    assert judged(head)[0] == Petition("a.b.c", "")
    assert len(knowing(head)) == 0


def test_an_answer_with_extensions_is_not_learned():
    known = KnownHeads()
    petition, upgrade = judged(PLAIN)
    known.learn(PLAIN, petition, Upgrade(upgrade.response, [object()]))
    assert len(known) == 0


def test_forms_are_bounded():
    known = KnownHeads()
    for number in range(1_000):
        head = PLAIN.replace(b"Host: x", b"Host: x%d" % number)
        known.learn(head, *judged(head))
        assert known.read(head) == judged(head)
        assert len(known) <= 64


PARTS = st.binary(max_size=30) | st.sampled_from([b"", KEY, b"a.b.c", b"\r\nHost: y", b" a"])


@settings(max_examples=400)
@given(st.sampled_from([PLAIN, WITHOUT_TICKET]), PARTS, PARTS, PARTS)
def test_whatever_stands_in_the_place_of_a_part(good, key, token, ticket):
    head = good.replace(KEY, key).replace(b"a.b.c", token).replace(b": tick", b": " + ticket)
    read = knowing(PLAIN, WITHOUT_TICKET).read(head)
    assert read is None or read == judged(head)
