"""The raw scan compared with the full parser."""

import datetime as dt
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.heads import disagreements
from gateway.edge.errors import Refusal
from gateway.edge.opening.handshake import negotiate, read_request
from gateway.edge.opening.head import HeadScanner, scan_head
from gateway.edge.opening.petition import Petition, petition_of
from gateway.edge.opening.refusal import render_refusal

PLAIN = (
    b"GET /v1/device HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: tidegate.v1\r\nAuthorization: Bearer a.b.c\r\n"
    b"Tidegate-Ticket: tick\r\n\r\n"
)


def judge(head):
    """The petition that the full parser reads, or None."""
    try:
        request = read_request(head)
        negotiate(request, path="/v1/device", subprotocols=["tidegate.v1"], extensions=None)
        return petition_of(request)
    except Refusal:
        return None


def test_the_plainest_head_is_read():
    assert scan_head(PLAIN) == Petition("a.b.c", "tick") == judge(PLAIN)
    assert scan_head(PLAIN.replace(b"Tidegate-Ticket: tick\r\n", b"")) == Petition("a.b.c", "")
    assert scan_head(PLAIN.upper().replace(b"GET /V1/DEVICE", b"GET /v1/device")) is None


UNSURE = [
    (b"GET /v1/device", b"GET /v1/device?refusal=close"),
    (b"GET", b"get"),
    (b"HTTP/1.1", b"HTTP/1.0"),
    (b"Host: x\r\n", b"Host: x\r\n folded\r\n"),
    (b"Host: x\r\n", b"Host: x\r\nAuthorization: Bearer d.e.f\r\n"),
    (b"Host: x\r\n", b"Host: x\r\nTidegate-Ticket: other\r\n"),
    (b"Host: x\r\n", b"Host: x\r\nContent-Length: 5\r\n"),
    (b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding: chunked\r\n"),
    (b"Host: x\r\n", b"Host: x\r\nUpgrade: h2c\r\n"),
    (b"Host: x\r\n", b"Host : x\r\n"),
    (b"Host: x\r\n", b"Host: \x00\r\n"),
    (b"Host: x\r\n", b"Host: x\n"),
    (b"Bearer a.b.c", b"Bearer a b"),
    (b"Bearer a.b.c", b"Basic dTpw"),
    (b"tidegate.v1", b"tidegate.v1, other"),
    (b"Version: 13", b"Version: 8"),
    (b"websocket\r\n", b"websocket, h2c\r\n"),
]


@pytest.mark.parametrize(("old", "new"), UNSURE, ids=range(len(UNSURE)))
def test_an_unusual_head_is_left_to_the_full_parser(old, new):
    assert old in PLAIN
    assert scan_head(PLAIN.replace(old, new, 1)) is None


def test_the_subprotocol_counts_in_its_own_header_only():
    """Case A3: `Host: tidegate.v1` beside a subprotocol that is not ours."""
    head = PLAIN.replace(b"tidegate.v1", b"TIDEGATE.V1").replace(b"Host: x", b"Host: tidegate.v1")
    assert scan_head(head) is None
    assert judge(head) is None


def test_scan_and_full_parser_agree_on_two_origins():
    head = PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nOrigin: a\r\nOrigin: b\r\n")
    assert scan_head(head) == judge(head) == Petition("a.b.c", "tick")


@st.composite
def mutated(draw, good=PLAIN):
    """A good head: cut, doubled, spliced with bytes that matter to HTTP."""
    head = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(head)))
        splice = draw(
            st.sampled_from([b"\r\n", b":", b" ", b"\t", b"\x00", b",", b"\xff", b"A", b"=", b""])
        )
        cut = draw(st.integers(0, 3))
        head[at : at + cut] = splice
    return bytes(head)


@settings(max_examples=400)
@given(mutated())
def test_the_full_parser_reads_what_the_scan_reads(head):
    petition = scan_head(head)
    if petition is not None:
        assert judge(head) == petition


def test_scan_and_full_parser_agree_on_a_thousand_generated_heads():
    """`make fuzz-heads` generates a million. The seed is the date, so each day is another run."""
    found, accepted, of_known_form = disagreements(dt.datetime.now(dt.UTC).toordinal(), 1_000)
    assert found == []
    assert 200 < accepted < 900, "they must be neither all good nor all bad"
    assert 20 < of_known_form < 900


MARKER = b"S3CRET"


@pytest.mark.parametrize(
    "name", [b"Upgrade", b"Connection", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"]
)
def test_no_refusal_repeats_the_value_of_a_header(name):
    request = read_request(re.sub(rb"%b: [^\r]*" % name, b"%b: %b" % (name, MARKER), PLAIN))
    with pytest.raises(Refusal) as caught:
        negotiate(request, path=None, subprotocols=["tidegate.v1"], extensions=None)
    assert MARKER not in render_refusal(caught.value)


@pytest.mark.parametrize(
    "head", [b"% HTTP/1.1", b"GET /% HTTP/9", b"GET /% HTTP/1.1\r\nX% \x00: y"]
)
def test_no_refusal_repeats_a_malformed_head(head):
    with pytest.raises(Refusal) as caught:
        read_request(head.replace(b"%", MARKER) + b"\r\n\r\n")
    assert MARKER not in render_refusal(caught.value)


CREDENTIAL_FIRST = (
    b"GET /v1/device HTTP/1.1\r\nTidegate-Ticket: tick\r\nAuthorization: Bearer a.b.c\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUpgrade: websocket\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: tidegate.v1\r\n"
    b"\r\n"
)
ORDERS = [
    PLAIN,
    PLAIN.replace(b"Tidegate-Ticket: tick\r\n", b""),
    PLAIN.replace(b"\r\n\r\n", b"\r\nUser-Agent: t/1\r\n\r\n"),
    CREDENTIAL_FIRST,
]


@settings(max_examples=400)
@given(st.sampled_from(ORDERS).flatmap(lambda good: mutated(good=good)))
def test_a_remembered_form_reads_as_the_scan_does(head):
    scanner = HeadScanner()
    for good in ORDERS:
        assert scanner.scan(good) == scan_head(good) is not None
    assert scanner.scan(head) == scan_head(head)


def test_forms_are_learned_once_and_bounded():
    scanner = HeadScanner()
    for credential, key, ticket in ((b"a.b.c", b"A", b"tick"), (b"dd.e-_.f", b"/", b"other")):
        head = PLAIN.replace(b"a.b.c", credential).replace(b": tick", b": " + ticket)
        head = head.replace(b"dGhlIHNhbXBsZSBub25jZ", key * 21)
        assert scanner.scan(head) == Petition(credential.decode(), ticket.decode())
        assert len(scanner) == 1
    for number in range(1_000):
        assert scanner.scan(PLAIN.replace(b"Host: x", b"Host: x%d" % number)) is not None
        assert len(scanner) <= 64
    assert scanner.scan(PLAIN) == Petition("a.b.c", "tick")


@given(st.binary(max_size=300))
def test_noise_is_left_to_the_full_parser(rubbish):
    assert scan_head(rubbish + b"\r\n\r\n") is None
