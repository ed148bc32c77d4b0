"""Frames as strangers could send them: plain ones, the worst ones, and samples."""

from collections.abc import Callable

from websockets.frames import Frame, Opcode

from gateway.session.limits import SessionLimits
from gateway.session.machine import Session
from support.in_memory import Line, Listening

Parse = Callable[[bytes], object]
Make = Callable[[int], bytes]


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


def segment() -> Parse:
    """From the bytes of a segment to messages that can be stored."""
    return Line(handler=_Device(), frame_bytes_max=262_144).connection.data_received


def framed(make: Make) -> Make:
    return lambda size: Frame(Opcode.TEXT, make(size)).serialize(mask=True)


def message(data: bytes) -> bytes:
    return b'{"seq":1,"type":"t","data":%b}' % data


def array(size: int, count: int, body: bytes, fill: bytes = b"") -> bytes:
    """So many messages; `body` with `%b` where `fill` is repeated to make up the size."""
    room = max(0, size // count - len(body) - 12)
    filled = body.replace(b"%b", fill * (room // max(1, len(fill))))
    return b"[" + b",".join(b'{"seq":%d,%b}' % (seq, filled) for seq in range(1, count + 1)) + b"]"


def string(size: int) -> bytes:
    return b'"' + b"a" * (size - 2) + b'"'


def comb(depth: int) -> Make:
    tooth = b"[" * depth + b"]" * depth
    return lambda size: b"[" + b",".join([tooth] * (size // (len(tooth) + 1))) + b"]"


def list_of(element: bytes) -> Make:
    return lambda size: b"[" + b",".join([element] * (size // (len(element) + 1))) + b"]"


BODIES: dict[str, Make] = {
    "flat arrays": list_of(b"[]"),
    "flat objects": list_of(b"{}"),
    "comb of 31": comb(31),
    "comb of 40": comb(40),
    "deep": lambda size: b"[" * min(size // 2, 900) + b"]" * min(size // 2, 900) + b" " * size,
    "numbers": list_of(b"1"),
    "floats": list_of(b"1e1"),
    "one number": lambda size: b"1" * size,
    "brackets in strings": list_of(b'"["'),
    "strings in brackets": list_of(b'["["]'),
    "strings in a comb": list_of(b'["[",' * 30 + b'["["' + b"]" * 31),
    "level at 31": lambda size: b"[" * 31 + b"[]," * (size // 3 - 40) + b"1" + b"]" * 31,
    "escaped quotes": lambda size: b"[" * 20 + b'"' + rb"\"" * (size // 2) + b'"' + b"]" * 20,
    "escaped backslashes": lambda size: b"[" * 20 + b'"' + b"\\\\" * (size // 2) + b'"' + b"]" * 20,
    "escapes": lambda size: b'"' + rb"\u00e9" * (size // 6) + b'"',
    "keys": lambda size: b"{" + b",".join([b'"[":[]'] * (size // 7)) + b"}",
    "not ASCII": lambda size: b'"' + "é".encode() * (size // 2) + b'"',
    "whitespace": lambda size: b"[" + b" " * size + b"]",
}


def one(make: Make) -> Make:
    return lambda size: message(make(size - 40))


def frame_inputs() -> dict[str, Make]:
    half = rb"\ud800"
    return {
        "wrong types of members": lambda size: array(size, 256, b'"type":7,"data":"%b"', b"a"),
        "bad names of types": lambda size: array(size, 256, b'"type":"!","data":"%b"', b"a"),
        "long names of types": lambda size: array(size, 256, b'"type":"%b","data":1', b"a"),
        "bad times": lambda size: array(size, 256, b'"type":"t","data":1,"time":"%b"', b"1"),
        "half surrogate pairs": lambda size: array(size, 256, b'"type":"t","data":"%b"', half),
        "whole surrogate pairs and a half": lambda size: message(
            b'"' + rb"\ud83d\ude00" * (size // 12) + half + b'"'
        ),
        "combs in each": lambda size: array(size, 256, b'"type":"t","data":%b', b"").replace(
            b'"data":', b'"data":' + comb(31)(size // 256 - 30)
        ),
        "too large, a comb": lambda size: message(comb(31)(size)),
        "beyond the credit": lambda size: array(
            size - 20_000, 1_000, b'"type":"t","data":"%b"', b"a"
        ),
        "damaged beyond the credit": lambda size: array(size, 1_000, b'"type":7,"data":"%b"', b"a"),
        "far too many": lambda size: array(size, size // 40, b'"type":"t","data":1'),
        "far too many, damaged": lambda size: array(size, size // 22, b'"x":0'),
        "a gap at the end": lambda size: array(size, 200, b'"type":"t","data":"%b"', b"a").replace(
            b'"seq":200', b'"seq":300'
        ),
        "nothing": lambda size: b"[" + b" " * size + b"]",
        "no messages": list_of(b"[]"),
        "repeated members": lambda size: b"{" + b'"seq":1,' * (size // 8) + b'"type":"t","data":1}',
        "unknown members": lambda size: b"{" + b'"x":1,' * (size // 6) + b'"seq":1}',
        "a hello of unknown members": lambda size: (
            b'{"hello":{"outbox":"c","oldest":1%b}}' % (b',"x":[]' * (size // 7))
        ),
        "a result": lambda size: b'{"result":{"id":"1","ok":true,"data":%b}}' % comb(31)(size),
        "a credential": lambda size: b'{"credential":"%b"}' % (b"a" * size),
        "a credential of escapes": lambda size: b'{"credential":"%b"}' % (rb"\u0061" * (size // 6)),
        "cut off": lambda size: message(comb(31)(size))[:-1],
        "not UTF-8 at its end": lambda size: message(string(size))[:-2] + b"\xff}",
        "too deep to parse": lambda size: message(b"[" * (size // 2) + b"]" * (size // 2)),
    }


SAMPLES = (
    b'{"hello":{"outbox":"b","oldest":1,"sent":0,"age_ms":5}}',
    b'{"seq":1,"type":"battery.low","data":{"a":[1,2.5e3,"x",null,true]},"time":"2026-01-01T00:00:00Z"}',
    b'[{"seq":1,"type":"t","data":"\\ud83d\\ude00"},{"seq":2,"type":"t","data":[]}]',
    b'{"result":{"id":"1","ok":false,"data":"no"}}',
    b'{"credential":"a.b.c"}',
)
SEGMENTS = tuple(Frame(Opcode.TEXT, text).serialize(mask=True) for text in SAMPLES)
_BODY = b'{"seq":1,"type":"battery.low","data":{"soc":71.5,"speed":42.1,"lat":52.5163}}'


def _text_frame(length: bytes, size: int) -> bytes:
    frame = b"\x81" + length + bytes(4) + _BODY
    return frame * (size // len(frame))


def text_frames(size: int) -> bytes:
    return _text_frame(bytes((0x80 | len(_BODY),)), size)


def ping(size: int) -> bytes:
    return b"\x89\x80\x00\x00\x00\x00" * (size // 6)


FRAMING: dict[str, Make] = {
    "pings": ping,
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
