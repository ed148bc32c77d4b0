"""The full parser of the opening handshake: lists in headers, and what is agreed on."""

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.edge.errors import Refusal
from gateway.edge.opening.handshake import (
    ELEMENTS_MAX,
    EXTENSIONS_CHARS_MAX,
    negotiate,
    read_request,
)

PROTOCOL = "Sec-WebSocket-Protocol: "
EXTENSIONS = "Sec-WebSocket-Extensions: "


def head(*lines):
    plain = (
        "GET /v1/device HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    return "\r\n".join([*plain, *lines, "", ""]).encode()


def answer(*lines, extensions=None):
    return negotiate(
        read_request(head(*lines)), path=None, subprotocols=["ours"], extensions=extensions
    )


@pytest.mark.parametrize("in_a_line", [1, 2, ELEMENTS_MAX])
def test_the_elements_of_a_list_are_bounded_in_one_line_or_many(in_a_line):
    lines = [PROTOCOL + ",".join(["other"] * in_a_line)] * (ELEMENTS_MAX // in_a_line)
    most = [PROTOCOL + ",".join(["ours"] + ["other"] * (in_a_line - 1)), *lines[1:]]
    assert b"Sec-WebSocket-Protocol: ours" in answer(*most).response
    with pytest.raises(Refusal, match="has over 64 elements"):
        answer(*most, PROTOCOL + "one-more")


def test_one_extension_of_a_kind_is_agreed_on():
    offers = "permessage-deflate; client_max_window_bits, permessage-deflate, x-unknown"
    deflate = ServerPerMessageDeflateFactory()
    agreed = answer(PROTOCOL + "ours", EXTENSIONS + offers, extensions=[deflate])
    assert [each.name for each in agreed.extensions] == ["permessage-deflate"]
    assert agreed.response.count(b"permessage-deflate") == 1


def test_without_extensions_of_ours_none_is_agreed_on():
    agreed = answer(PROTOCOL + "ours", EXTENSIONS + "permessage-deflate")
    assert agreed.extensions == []
    assert b"Extensions" not in agreed.response


@pytest.mark.parametrize(("more", "agreed"), [(0, 1), (1, 0)])
def test_a_long_offer_of_extensions_is_declined_unread(more, agreed):
    offer = "permessage-deflate, x-"
    offer += "a" * (EXTENSIONS_CHARS_MAX - len(offer) + more)
    found = answer(
        PROTOCOL + "ours", EXTENSIONS + offer, extensions=[ServerPerMessageDeflateFactory()]
    )
    assert len(found.extensions) == agreed
