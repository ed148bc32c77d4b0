"""Heads of requests, and the names, tokens and tickets in them, as strangers could send them."""

import base64
import time
from collections.abc import Callable

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.admission.credential import CredentialPolicy, CredentialVerifier
from gateway.admission.keys import KeySet
from gateway.admission.ticket import TicketOffice
from gateway.edge.opening.handshake import negotiate, read_request
from support.credentials import ALGORITHMS
from support.stranger_frames import (
    Make,
    Parse,
    list_of,
)
from tidegate.wire.grammar import is_message_type, is_timestamp, is_token

HEAD = (
    b"GET /v1/device HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: tidegate.v1\r\nAuthorization: Bearer a.b.c\r\n"
    b"Tidegate-Ticket: tick\r\n\r\n"
)


def _with(old: bytes, new: Callable[[int], bytes]) -> Make:
    return lambda size: HEAD.replace(old, new(max(0, size - len(HEAD))), 1)


HEADS: dict[str, Make] = {
    "subprotocols": _with(b"tidegate.v1", lambda room: b"tidegate.v1" + b",a" * (room // 2)),
    "empty subprotocols": _with(b"tidegate.v1", lambda room: b"," * room + b"tidegate.v1"),
    "options": _with(b": Upgrade", lambda room: b": Upgrade" + b",a" * (room // 2)),
    "extensions": _with(
        b"Host: x",
        lambda room: (
            b"Sec-WebSocket-Extensions: "
            + b",".join([b"permessage-deflate;server_max_window_bits=1"] * (room // 43))
        ),
    ),
    "parameters of extensions": _with(
        b"Host: x", lambda room: b"Sec-WebSocket-Extensions: x" + b";a" * (room // 2)
    ),
    "headers": _with(b"Host: x\r\n", lambda room: b"A:\r\n" * (room // 4)),
    "a hundred headers": _with(
        b"Host: x\r\n", lambda room: (b"A: " + b"b" * (room // 110) + b"\r\n") * 100
    ),
    "a long value": _with(b"Host: x", lambda room: b"Host: " + b"x" * room),
    "spaces": _with(b"Host: x", lambda room: b"Host: " + b" " * room),
    "a long query": _with(b"/v1/device ", lambda room: b"/v1/device?" + b"a&" * (room // 2) + b" "),
    "a long target": _with(b"/v1/device ", lambda room: b"/" * room + b" "),
    "a long token": _with(b"a.b.c", lambda room: b"a" * room),
    "a long ticket": _with(b"tick", lambda room: b"t" * room),
    "line ends": _with(b"Host: x", lambda room: b"Host: " + b"\r" * room),
}
_HEAD_END = b"\r\n\r\n"


def handshake() -> Parse:
    extensions = [ServerPerMessageDeflateFactory()]

    def parse(head: bytes) -> object:
        # A connection hands over what ends with the first empty line.
        request = read_request(head.partition(_HEAD_END)[0] + _HEAD_END)
        return negotiate(
            request, path="/v1/device", subprotocols=["tidegate.v1"], extensions=extensions
        )

    return parse


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


SECRET = b"0123456789abcdef0123456789abcdef"


def verifier() -> Parse:
    jwks = {"keys": [{"kty": "oct", "kid": "hs", "k": _b64(SECRET).decode()}]}
    verifier = CredentialVerifier(
        KeySet.from_jwks(jwks, ALGORITHMS),
        CredentialPolicy(algorithms=("HS256",), audience=None, issuer=None, leeway_s=0),
        clock=time.time,
        is_token=is_token,
        cache_entries_max=10,
    )
    return lambda token: verifier.verify(token.decode("latin-1"))


def token(header: bytes, claims: bytes) -> bytes:
    return b".".join((_b64(header), _b64(claims), _b64(bytes(32))))


HS: bytes = b'{"alg":"HS256","kid":"hs"}'


def claims(make: Make) -> Make:
    return lambda size: token(HS, make((size - 100) * 3 // 4))


TOKENS: dict[str, Make] = {
    "dots": lambda size: b"." * size,
    "padding": lambda size: b"=" * size,
    "a deep header": lambda size: token(b"[" * (size * 3 // 4 - 60), b"{}"),
    "a header of members": lambda size: token(
        b"{" + b",".join([b'"a":1'] * (size * 3 // 4 // 6 - 10)) + b"}", b"{}"
    ),
    "deep claims": claims(lambda size: b"[" * size),
    "a number": claims(lambda size: b'{"exp":' + b"1" * (size - 8) + b"}"),
    "members": claims(lambda size: b"{" + b",".join([b'"a":1'] * (size // 6)) + b"}"),
    "lists": claims(list_of(b"[]")),
}


def office() -> Parse:
    office = TicketOffice([SECRET])
    office.issue(0.0, holder=bytes(8), now=0.0)
    return lambda text: office.check(text.decode("latin-1"), holder=bytes(8), now=0.0)


def names() -> Parse:
    def parse(name: bytes) -> object:
        text = name.decode("latin-1")
        return is_token(text), is_message_type(text), is_timestamp(text)

    return parse
