"""Every parser that reads bytes from strangers, with a plain input and its worst ones.

`parsers/test_worst.py` holds what the worst ones cost, `parsers/worst.py` prints it, and
`parsers/test_fuzz.py` feeds each with mutations of what is here.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.admission.credential import claimed_holder
from gateway.admission.errors import CredentialError, TicketError
from gateway.admission.ticket import TicketOffice
from gateway.edge.errors import Refusal
from gateway.edge.opening.head import HeadScanner
from gateway.ops.errors import BadOrder
from gateway.ops.listener import BODY_BYTES_MAX
from gateway.ops.orders import parse_drain, parse_revoke
from gateway.session.errors import SessionError
from support.in_memory import Line
from support.stranger_frames import (
    BODIES,
    FRAMING,
    SEGMENTS,
    Make,
    Parse,
    array,
    frame_inputs,
    framed,
    list_of,
    one,
    ping,
    segment,
    string,
    text_frames,
)
from support.stranger_heads import (
    HEAD,
    HEADS,
    HS,
    SECRET,
    TOKENS,
    claims,
    handshake,
    names,
    office,
    token,
    verifier,
)
from tidegate.wire.errors import FrameError
from tidegate.wire.frames import decode_server_frame
from tidegate.wire.grammar import is_token


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


def _order(body: bytes) -> object:
    with contextlib.suppress(BadOrder):
        parse_drain(body)
    return parse_revoke(body, now=0.0, is_token=is_token)


PARSERS = (
    Parser(
        "frame of messages",
        segment,
        240_000,
        framed(lambda size: array(size, 4, b'"type":"t","data":"%b"', b"a")),
        {name: framed(make) for name, make in frame_inputs().items()},
        (SessionError,),
        SEGMENTS,
    ),
    Parser(
        "data of a message",
        segment,
        65_000,
        framed(one(string)),
        {name: framed(one(make)) for name, make in BODIES.items()},
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
        text_frames,
        FRAMING,
        samples=(text_frames(200), ping(18), FRAMING["fragments"](18)),
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
        handshake,
        8_000,
        HEADS["a long value"],
        HEADS,
        (Refusal,),
        (HEAD,),
    ),
    Parser(
        "credential",
        verifier,
        4_000,
        claims(lambda size: b'{"exp":1,"sub":"' + b"a" * (size - 18) + b'"}'),
        TOKENS,
        (CredentialError,),
        (token(HS, b'{"exp":9999999999,"sub":"veh-1"}'),),
    ),
    Parser(
        "claimed holder",
        lambda: lambda token: claimed_holder(token.decode("latin-1")),
        8_000,
        claims(lambda size: b'{"exp":1,"sub":"' + b"a" * (size - 18) + b'"}'),
        TOKENS,
        samples=(token(HS, b'{"exp":9999999999,"sub":"veh-1"}'),),
    ),
    Parser(
        "ticket",
        office,
        8_000,
        lambda size: b"A" * size,
        {"padding": lambda size: b"=" * size, "noise": lambda size: b"\xff" * size},
        (TicketError,),
        (TicketOffice([SECRET]).issue(0.0, holder=bytes(8), now=0.0).encode(),),
    ),
    Parser(
        "names and times",
        names,
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
            "lists": list_of(b"[]"),
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
