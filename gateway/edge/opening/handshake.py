"""The full parser of the opening handshake (RFC 6455 section 4.2). It judges every form of head.

`read_request` reads a head as HTTP/1.1, and `negotiate` decides whether it is a WebSocket handshake
for this gateway. Both cost time linear in the head and raise nothing but `Refusal`, whose text
names the offence and never repeats what the client sent. Both accept what `head.scan_head` accepts.
Pure.
"""

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from msgspec import Struct
from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions import Extension, ServerExtensionFactory
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionHeader

from gateway.edge.errors import Refusal
from gateway.edge.opening.refusal import bad_request

HEADERS_MAX: Final = 128
ELEMENTS_MAX: Final = 64
"""In a header that is a list. A browser sends three."""
EXTENSIONS_CHARS_MAX: Final = 256
"""In an offer of extensions; a browser sends 42. The library reads offers in quadratic time."""

_LINE_END: Final = b"\r\n"
_WHITESPACE: Final = b" \t"
_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110 section 5.6.2
_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110 section 5.5
_target = re.compile(rb"[\x21-\x7e]+").fullmatch
_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64
_KEY_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 4.2.2
_SHA1: Final = hashlib.sha1(usedforsecurity=False)
"""Of nothing. It is copied for each key, which costs half as much as to ask for one more."""
ACCEPT_CHARS: Final = 28
"""Of the accept value: a SHA-1 in base64."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request head. Names of headers are in lower case, values as Latin-1 text."""

    method: str
    path: str
    query: str
    headers: dict[str, list[str]]

    def values(self, name: str) -> list[str]:
        """Every value of a header; `name` in lower case."""
        return self.headers.get(name, [])

    def elements(self, name: str) -> list[str]:
        """The elements of a header that is a list (RFC 9110 section 5.6.1).

        Raises:
            Refusal: 400, there are too many.
        """
        if sum(value.count(",") + 1 for value in self.values(name)) > ELEMENTS_MAX:
            raise bad_request("handshake", f"{name} has over {ELEMENTS_MAX} elements")
        return [
            element
            for value in self.values(name)
            for part in value.split(",")
            if (element := part.strip(" \t"))
        ]


class Upgrade(Struct, frozen=True, gc=False):
    """The answer that accepts a handshake, and the extensions it agrees on."""

    response: bytes
    extensions: list[Extension]


def read_request(head: bytes) -> Request:
    """Read a complete head, its empty line included.

    Raises:
        Refusal: 400, it is not HTTP/1.1 as RFC 9112 has it, or it announces a body.
    """
    request_line, *lines = head.split(_LINE_END)[:-2]
    parts = request_line.split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1" or not _token(parts[0]) or not _target(parts[1]):  # noqa: PLR2004  # RFC 9112 section 3
        raise bad_request("handshake", "the request line is not one of HTTP/1.1")
    if len(lines) > HEADERS_MAX:
        raise bad_request("handshake", f"over {HEADERS_MAX} header lines")
    headers: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(b":")
        if not colon or not _token(name) or not _value(value):
            raise bad_request("handshake", f"header line {number} is malformed")
        headers.setdefault(name.decode().lower(), []).append(
            value.strip(_WHITESPACE).decode("latin-1")
        )
    if "transfer-encoding" in headers or headers.get("content-length", ["0"]) != ["0"]:
        raise bad_request("handshake", "a handshake has no body")
    path, query = _path_and_query(parts[1].decode())
    return Request(parts[0].decode(), path, query, headers)


def _path_and_query(target: str) -> tuple[str, str]:
    """Split a target in origin form, or in absolute form (RFC 9112 section 3.2)."""
    if not target.startswith("/"):
        _scheme, separator, rest = target.partition("://")
        slash = rest.find("/")
        target = rest[slash:] if separator and slash >= 0 else target
    path, _, query = target.partition("?")
    return path, query


def negotiate(
    request: Request,
    *,
    path: str | None,
    subprotocols: Sequence[str] | None,
    extensions: Sequence[ServerExtensionFactory] | None,
) -> Upgrade:
    """Check that a request is a handshake, and make the answer that accepts it.

    Args:
        request: of a client.
        path: the only one that is served, or None for any.
        subprotocols: those that we speak, the best first; None for none.
        extensions: those that we can use; None for none.

    Raises:
        Refusal: 404, 426 or 400.
    """
    if path is not None and request.path != path:
        raise Refusal(HTTPStatus.NOT_FOUND, "not_found", detail=f"devices use {path}")
    connection = [option.lower() for option in request.elements("connection")]
    upgrade = [protocol.lower() for protocol in request.elements("upgrade")]
    if request.method != "GET" or "upgrade" not in connection or upgrade != ["websocket"]:
        raise Refusal(HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", detail="not a WebSocket")
    keys = request.values("sec-websocket-key")
    if len(keys) != 1 or not _key(keys[0]):
        raise bad_request("handshake", "Sec-WebSocket-Key is not one of 16 bytes")
    if request.values("sec-websocket-version") != ["13"]:
        raise bad_request("handshake", "Sec-WebSocket-Version is not 13")
    agreed, header = _negotiate_extensions(request, extensions)
    chosen = _choose_subprotocol(request, subprotocols)
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_of(keys[0].encode()).decode()}",
    ]
    if header:
        lines.append(f"Sec-WebSocket-Extensions: {header}")
    if chosen:
        lines.append(f"Sec-WebSocket-Protocol: {chosen}")
    return Upgrade("\r\n".join([*lines, "", ""]).encode(), agreed)


def accept_of(key: bytes) -> bytes:
    """The value that proves that a handshake with this key was read (RFC 6455 section 4.2.2)."""
    digest = _SHA1.copy()
    digest.update(key + _KEY_SUFFIX)
    return binascii.b2a_base64(digest.digest(), newline=False)


def _choose_subprotocol(request: Request, subprotocols: Sequence[str] | None) -> str:
    if not subprotocols:
        return ""
    offered = request.elements("sec-websocket-protocol")
    for ours in subprotocols:
        if ours in offered:
            return ours
    detail = f"offer the subprotocol {subprotocols[0]}"
    raise bad_request("subprotocol", detail)


def _negotiate_extensions(
    request: Request, extensions: Sequence[ServerExtensionFactory] | None
) -> tuple[list[Extension], str]:
    """Accept the offers that we can use. Declining the others is no error."""
    agreed: list[Extension] = []
    answer: list[ExtensionHeader] = []
    headers = request.values("sec-websocket-extensions")
    if not extensions or sum(map(len, headers)) > EXTENSIONS_CHARS_MAX:
        return agreed, ""
    try:
        offered = [offer for value in headers for offer in parse_extension(value)]
    except InvalidHandshake:
        raise bad_request("handshake", "Sec-WebSocket-Extensions is malformed") from None
    for name, parameters in offered:
        for factory in extensions:
            if factory.name != name or any(each.name == name for each in agreed):
                continue
            try:
                response, extension = factory.process_request_params(parameters, agreed)
            except NegotiationError:
                continue
            answer.append((name, response))
            agreed.append(extension)
            break
    return agreed, build_extension(answer) if answer else ""
