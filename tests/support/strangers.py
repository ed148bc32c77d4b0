"""Every parser that reads bytes from strangers, with a plain input and its worst ones.

`parsers/test_worst.py` holds what the worst ones cost, `parsers/worst.py` prints it, and
`parsers/test_fuzz.py` feeds each with mutations of what is here.
"""

import base64
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from gateway.admission.credential import CredentialPolicy, CredentialVerifier, claimed_holder
from gateway.admission.errors import CredentialError, TicketError
from gateway.admission.keys import KeySet
from gateway.admission.ticket import TicketOffice
from gateway.edge.errors import Refusal
from gateway.edge.handshake import negotiate, read_request
from gateway.edge.head import HeadScanner
from gateway.ops.errors import BadOrder
from gateway.ops.listener import BODY_BYTES_MAX
from gateway.ops.orders import parse_drain, parse_revoke
from gateway.session.errors import SessionError
from gateway.session.limits import SessionLimits
from gateway.session.machine import Session
from support.in_memory import Line, Listening
from support.values import ALGORITHMS
from tidegate.wire.errors import FrameError
from tidegate.wire.frames import decode_server_frame
from tidegate.wire.grammar import is_message_type, is_timestamp, is_token

Parse = Callable[[bytes], object]
Make = Callable[[int], bytes]


@dataclass(frozen=True)
class Parser:
    """A parser, and inputs of about a given size in bytes."""

    name: str
    fresh: Callable[[], Parse]
    """Makes one that has seen nothing; not part of the cost."""
    size: int
    """Bytes of the largest input it may be given, as the settings have it."""
    plain: Make
    worst: Mapping[str, Make]
    errors: tuple[type[Exception], ...] = ()
    """What it raises; anything else is a fault."""
    samples: tuple[bytes, ...] = field(default=())
    """Small inputs of all kinds, to begin mutations with."""


# Frames


def _session() -> Session:
    session = Session(SessionLimits(credit_initial=256))
    session.receive(b'{"hello":{"outbox":"b","oldest":1}}')
    session.begin(0, 256)
    return session


class _Device(Listening):
    """Feeds a session, as the gateway does."""

    def __init__(self) -> None:
        super().__init__()
        self.received_text = _session().receive


def _segment() -> Parse:
    """From the bytes of a segment to messages that can be stored."""
    return Line(handler=_Device(), frame_bytes_max=262_144).connection.data_received


def _framed(make: Make) -> Make:
    return lambda size: Frame(Opcode.TEXT, make(size)).serialize(mask=True)


def _message(data: bytes) -> bytes:
    return b'{"seq":1,"type":"t","data":%b}' % data


def _array(size: int, count: int, body: bytes, fill: bytes = b"") -> bytes:
    """So many messages; `body` with `%b` where `fill` is repeated to make up the size."""
    room = max(0, size // count - len(body) - 12)
    filled = body.replace(b"%b", fill * (room // max(1, len(fill))))
    return b"[" + b",".join(b'{"seq":%d,%b}' % (seq, filled) for seq in range(1, count + 1)) + b"]"


def _string(size: int) -> bytes:
    return b'"' + b"a" * (size - 2) + b'"'


def _comb(depth: int) -> Make:
    tooth = b"[" * depth + b"]" * depth
    return lambda size: b"[" + b",".join([tooth] * (size // (len(tooth) + 1))) + b"]"


def _list_of(element: bytes) -> Make:
    return lambda size: b"[" + b",".join([element] * (size // (len(element) + 1))) + b"]"


BODIES: dict[str, Make] = {
    "flat arrays": _list_of(b"[]"),
    "flat objects": _list_of(b"{}"),
    "comb of 31": _comb(31),
    "comb of 40": _comb(40),
    "deep": lambda size: b"[" * min(size // 2, 900) + b"]" * min(size // 2, 900) + b" " * size,
    "numbers": _list_of(b"1"),
    "floats": _list_of(b"1e1"),
    "one number": lambda size: b"1" * size,
    "brackets in strings": _list_of(b'"["'),
    "strings in brackets": _list_of(b'["["]'),
    "strings in a comb": _list_of(b'["[",' * 30 + b'["["' + b"]" * 31),
    "level at 31": lambda size: b"[" * 31 + b"[]," * (size // 3 - 40) + b"1" + b"]" * 31,
    "escaped quotes": lambda size: b"[" * 20 + b'"' + rb"\"" * (size // 2) + b'"' + b"]" * 20,
    "escaped backslashes": lambda size: b"[" * 20 + b'"' + b"\\\\" * (size // 2) + b'"' + b"]" * 20,
    "escapes": lambda size: b'"' + rb"\u00e9" * (size // 6) + b'"',
    "keys": lambda size: b"{" + b",".join([b'"[":[]'] * (size // 7)) + b"}",
    "not ASCII": lambda size: b'"' + "é".encode() * (size // 2) + b'"',
    "whitespace": lambda size: b"[" + b" " * size + b"]",
}


def _one(make: Make) -> Make:
    return lambda size: _message(make(size - 40))


def _frame_inputs() -> dict[str, Make]:
    half = rb"\ud800"
    return {
        "wrong types of members": lambda size: _array(size, 256, b'"type":7,"data":"%b"', b"a"),
        "bad names of types": lambda size: _array(size, 256, b'"type":"!","data":"%b"', b"a"),
        "long names of types": lambda size: _array(size, 256, b'"type":"%b","data":1', b"a"),
        "bad times": lambda size: _array(size, 256, b'"type":"t","data":1,"time":"%b"', b"1"),
        "half surrogate pairs": lambda size: _array(size, 256, b'"type":"t","data":"%b"', half),
        "whole surrogate pairs and a half": lambda size: _message(
            b'"' + rb"\ud83d\ude00" * (size // 12) + half + b'"'
        ),
        "combs in each": lambda size: _array(size, 256, b'"type":"t","data":%b', b"").replace(
            b'"data":', b'"data":' + _comb(31)(size // 256 - 30)
        ),
        "too large, a comb": lambda size: _message(_comb(31)(size)),
        "beyond the credit": lambda size: _array(
            size - 20_000, 1_000, b'"type":"t","data":"%b"', b"a"
        ),
        "damaged beyond the credit": lambda size: _array(
            size, 1_000, b'"type":7,"data":"%b"', b"a"
        ),
        "far too many": lambda size: _array(size, size // 40, b'"type":"t","data":1'),
        "far too many, damaged": lambda size: _array(size, size // 22, b'"x":0'),
        "a gap at the end": lambda size: _array(size, 200, b'"type":"t","data":"%b"', b"a").replace(
            b'"seq":200', b'"seq":300'
        ),
        "nothing": lambda size: b"[" + b" " * size + b"]",
        "no messages": _list_of(b"[]"),
        "repeated members": lambda size: b"{" + b'"seq":1,' * (size // 8) + b'"type":"t","data":1}',
        "unknown members": lambda size: b"{" + b'"x":1,' * (size // 6) + b'"seq":1}',
        "a hello of unknown members": lambda size: (
            b'{"hello":{"outbox":"c","oldest":1%b}}' % (b',"x":[]' * (size // 7))
        ),
        "a result": lambda size: b'{"result":{"id":"1","ok":true,"data":%b}}' % _comb(31)(size),
        "a credential": lambda size: b'{"credential":"%b"}' % (b"a" * size),
        "a credential of escapes": lambda size: b'{"credential":"%b"}' % (rb"\u0061" * (size // 6)),
        "cut off": lambda size: _message(_comb(31)(size))[:-1],
        "not UTF-8 at its end": lambda size: _message(_string(size))[:-2] + b"\xff}",
        "too deep to parse": lambda size: _message(b"[" * (size // 2) + b"]" * (size // 2)),
    }


SAMPLES = (
    b'{"hello":{"outbox":"b","oldest":1,"sent":0,"age_ms":5}}',
    b'{"seq":1,"type":"battery.low","data":{"a":[1,2.5e3,"x",null,true]},"time":"2026-01-01T00:00:00Z"}',
    b'[{"seq":1,"type":"t","data":"\\ud83d\\ude00"},{"seq":2,"type":"t","data":[]}]',
    b'{"result":{"id":"1","ok":false,"data":"no"}}',
    b'{"credential":"a.b.c"}',
)


SEGMENTS = tuple(Frame(Opcode.TEXT, text).serialize(mask=True) for text in SAMPLES)


# Heads and what is in them

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


def _handshake() -> Parse:
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


_SECRET = b"0123456789abcdef0123456789abcdef"


def _verifier() -> Parse:
    jwks = {"keys": [{"kty": "oct", "kid": "hs", "k": _b64(_SECRET).decode()}]}
    verifier = CredentialVerifier(
        KeySet.from_jwks(jwks, ALGORITHMS),
        CredentialPolicy(algorithms=("HS256",), audience=None, issuer=None, leeway_s=0),
        clock=time.time,
        is_token=is_token,
        cache_entries_max=10,
    )
    return lambda token: verifier.verify(token.decode("latin-1"))


def _token(header: bytes, claims: bytes) -> bytes:
    return b".".join((_b64(header), _b64(claims), _b64(bytes(32))))


_HS: bytes = b'{"alg":"HS256","kid":"hs"}'


def _claims(make: Make) -> Make:
    return lambda size: _token(_HS, make((size - 100) * 3 // 4))


TOKENS: dict[str, Make] = {
    "dots": lambda size: b"." * size,
    "padding": lambda size: b"=" * size,
    "a deep header": lambda size: _token(b"[" * (size * 3 // 4 - 60), b"{}"),
    "a header of members": lambda size: _token(
        b"{" + b",".join([b'"a":1'] * (size * 3 // 4 // 6 - 10)) + b"}", b"{}"
    ),
    "deep claims": _claims(lambda size: b"[" * size),
    "a number": _claims(lambda size: b'{"exp":' + b"1" * (size - 8) + b"}"),
    "members": _claims(lambda size: b"{" + b",".join([b'"a":1'] * (size // 6)) + b"}"),
    "lists": _claims(_list_of(b"[]")),
}


def _office() -> Parse:
    office = TicketOffice([_SECRET])
    office.issue(0.0, holder=bytes(8), now=0.0)
    return lambda text: office.check(text.decode("latin-1"), holder=bytes(8), now=0.0)


def _names() -> Parse:
    def parse(name: bytes) -> object:
        text = name.decode("latin-1")
        return is_token(text), is_message_type(text), is_timestamp(text)

    return parse


_BODY = b'{"seq":1,"type":"battery.low","data":{"soc":71.5,"speed":42.1,"lat":52.5163}}'


def _text_frame(length: bytes, size: int) -> bytes:
    frame = b"\x81" + length + bytes(4) + _BODY
    return frame * (size // len(frame))


def _text_frames(size: int) -> bytes:
    return _text_frame(bytes((0x80 | len(_BODY),)), size)


def _ping(size: int) -> bytes:
    return b"\x89\x80\x00\x00\x00\x00" * (size // 6)


FRAMING: dict[str, Make] = {
    "pings": _ping,
    "pongs": lambda size: b"\x8a\x80\x00\x00\x00\x00" * (size // 6),
    "fragments": lambda size: (
        b"\x01\x80\x00\x00\x00\x00" + b"\x00\x80\x00\x00\x00\x00" * (size // 6)
    ),
    "64-bit lengths": lambda size: _text_frame(b"\xff" + len(_BODY).to_bytes(8, "big"), size),
    "one frame": lambda size: b"\x81\xff" + size.to_bytes(8, "big") + bytes(4 + size),
    "unmasked": lambda size: b"\x81\x00" * (size // 2),
    "reserved bits": lambda size: b"\xf1\x80\x00\x00\x00\x00" * (size // 6),
    "closes": lambda size: b"\x88\x80\x00\x00\x00\x00" * (size // 6),
}


def _order(body: bytes) -> object:
    with contextlib.suppress(BadOrder):
        parse_drain(body)
    return parse_revoke(body, now=0.0, is_token=is_token)


PARSERS = (
    Parser(
        "frame of messages",
        _segment,
        240_000,
        _framed(lambda size: _array(size, 4, b'"type":"t","data":"%b"', b"a")),
        {name: _framed(make) for name, make in _frame_inputs().items()},
        (SessionError,),
        SEGMENTS,
    ),
    Parser(
        "data of a message",
        _segment,
        65_000,
        _framed(_one(_string)),
        {name: _framed(_one(make)) for name, make in BODIES.items()},
        (SessionError,),
        SEGMENTS,
    ),
    Parser(
        "frame of a gateway",
        lambda: decode_server_frame,
        65_000,
        lambda size: b'{"command":{"id":"1","type":"t","data":"' + b"a" * size + b'"}}',
        {},  # a device reads what its own gateway says
        (FrameError,),
        (
            b'{"ack":1,"credit":2}',
            b'{"reject":{"seq":1,"error":"type","detail":"x"}}',
            b'{"command":{"id":"1","type":"t","data":{"a":[1]}}}',
        ),
    ),
    Parser(
        "framing",
        lambda: Line().connection.data_received,
        65_000,
        _text_frames,
        FRAMING,
        samples=(_text_frames(200), _ping(18), FRAMING["fragments"](18)),
    ),
    Parser(
        "head scan",
        lambda: HeadScanner().scan,
        8_000,
        HEADS["a long value"],
        HEADS,
        samples=(HEAD,),
    ),
    Parser(
        "handshake",
        _handshake,
        8_000,
        HEADS["a long value"],
        HEADS,
        (Refusal,),
        (HEAD,),
    ),
    Parser(
        "credential",
        _verifier,
        4_000,
        _claims(lambda size: b'{"exp":1,"sub":"' + b"a" * (size - 18) + b'"}'),
        TOKENS,
        (CredentialError,),
        (_token(_HS, b'{"exp":9999999999,"sub":"veh-1"}'),),
    ),
    Parser(
        "claimed holder",
        lambda: lambda token: claimed_holder(token.decode("latin-1")),
        8_000,
        _claims(lambda size: b'{"exp":1,"sub":"' + b"a" * (size - 18) + b'"}'),
        TOKENS,
        samples=(_token(_HS, b'{"exp":9999999999,"sub":"veh-1"}'),),
    ),
    Parser(
        "ticket",
        _office,
        8_000,
        lambda size: b"A" * size,
        {"padding": lambda size: b"=" * size, "noise": lambda size: b"\xff" * size},
        (TicketError,),
        (TicketOffice([_SECRET]).issue(0.0, holder=bytes(8), now=0.0).encode(),),
    ),
    Parser(
        "names and times",
        _names,
        65_000,
        lambda size: b"a" * size,
        {
            "dots": lambda size: b"." * size,
            "tokens": lambda size: b"a." * (size // 2),
            "digits": lambda size: b"2026-01-01T00:00:00." + b"1" * size,
            "not ASCII": lambda size: b"\xe9" * size,
        },
        samples=(b"2026-11-23T10:00:00.5+05:30", b"battery.low", b"2016-12-31T23:59:60Z"),
    ),
    Parser(
        "order of an operator",
        lambda: _order,
        BODY_BYTES_MAX,  # the listener refuses a longer body before it is parsed
        lambda size: b'{"until":1,"device":"' + b"a" * size + b'"}',
        {
            "members": lambda size: b"{" + b",".join([b'"jti":"a"'] * (size // 10)) + b"}",
            "a number": lambda size: b'{"until":' + b"1" * size + b"}",
            "lists": _list_of(b"[]"),
            "deep": lambda size: b'{"until":' + b"[" * size,
        },
        (BadOrder,),
        (b'{"until":1,"device":"a"}', b'{"until":1e3,"jti":"a"}', b'{"now":true}'),
    ),
)


def run(parser: Parser, text: bytes) -> object:
    """Feed a fresh parser; its own errors are an answer too."""
    parse = parser.fresh()
    try:
        return parse(text)
    except parser.errors as exc:
        return exc


def costs_us(parser: Parser, text: bytes, rounds: int) -> tuple[float, float]:
    """CPU microseconds of the plain input and of `text`, in turns: the fastest of so many each."""
    plain = parser.plain(parser.size)
    best = [math.inf, math.inf]
    for turn in range(2 * rounds):
        parse = parser.fresh()
        began = time.thread_time_ns()
        with contextlib.suppress(parser.errors):
            parse(text if turn % 2 else plain)
        best[turn % 2] = min(best[turn % 2], (time.thread_time_ns() - began) / 1_000)
    return best[0], best[1]


FLOOR_US = 20.0
"""A plain input below this is so cheap that a ratio over it says nothing."""


def ratio_of(parser: Parser, text: bytes, rounds: int) -> tuple[float, float, float]:
    """What `text` costs over a plain input of its size; and both, in CPU microseconds."""
    plain_us, worst_us = costs_us(parser, text, rounds)
    return worst_us / max(FLOOR_US, plain_us), plain_us, worst_us
