"""Where a handshake's credential and ticket are read from."""

import pytest

from gateway.edge.errors import Refusal
from gateway.edge.opening.handshake import read_request
from gateway.edge.opening.petition import petition_of


def petition(*lines):
    head = "".join(f"{line}\r\n" for line in ("GET /v1/device HTTP/1.1", *lines, ""))
    read = petition_of(read_request(head.encode()))
    return read.token, read.ticket


OFFER = "Sec-WebSocket-Protocol: tidegate.v1"


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        ([OFFER, "Authorization: Bearer a.b.c"], ("a.b.c", "")),
        ([OFFER, "Authorization: Bearer a.b.c", "Tidegate-Ticket: T"], ("a.b.c", "T")),
        ([f"{OFFER}, bearer.a.b.c, ticket.T"], ("a.b.c", "T")),
        ([f"{OFFER}, ticket.T", "Authorization: Bearer a.b.c"], ("a.b.c", "T")),
        ([f"{OFFER}, bearer.a.b.c, ticket.T", "Tidegate-Ticket: H"], ("a.b.c", "H")),
        ([f"{OFFER}, bearer.a.b.c, ticket.T, ticket.U"], ("a.b.c", "")),
        ([f"{OFFER}, bearer.a.b.c", "Tidegate-Ticket: T", "Tidegate-Ticket: U"], ("a.b.c", "")),
        ([OFFER, "Sec-WebSocket-Protocol: bearer.a.b.c", "X: y"], ("a.b.c", "")),
    ],
)
def test_a_header_goes_before_a_subprotocol_and_two_tickets_are_none(lines, read):
    assert petition(*lines) == read


@pytest.mark.parametrize(
    "lines",
    [
        [f"{OFFER}, bearer.a, bearer.b"],
        [OFFER, "Authorization: Bearer a", "Authorization: Bearer a"],
        [OFFER, "Authorization: Basic a"],
    ],
)
def test_two_credentials_or_another_scheme_are_refused(lines):
    with pytest.raises(Refusal) as caught:
        petition(*lines)
    assert (caught.value.status, caught.value.error) == (401, "credential")
