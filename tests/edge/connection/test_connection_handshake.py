"""Handshakes on a real socket that are cut, endless, or none."""

from http import HTTPStatus

import pytest

from gateway.edge.errors import Refusal
from support.echo_connections import HANDSHAKE, masked, wire
from support.waiting import within


async def test_a_frame_right_behind_the_handshake_is_heard(serve):
    rig = await serve()
    async with wire(rig, handshake=False) as raw:
        raw.send(HANDSHAKE + masked(1, b"early"))
        await within(raw.reader.readuntil(b"\r\n\r\n"))
        assert await raw.frame() == (1, b"early")


async def test_half_a_handshake_is_ended_by_its_deadline(serve):
    rig = await serve(head_timeout_s=0.05)
    async with wire(rig, handshake=False) as raw:
        raw.send(HANDSHAKE[:50])
        answer = await raw.end()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"head_timeout" in answer or b"too long" in answer
    assert rig.observer.refusals == [("bad_request", "head_timeout")]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 9_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2_000,
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_head_without_end_is_refused_at_its_limit(serve, head):
    rig = await serve(head_bytes_max=8_192)
    async with wire(rig, handshake=False) as raw:
        raw.send(head)
        assert (await raw.end()).startswith(b"HTTP/1.1 400")
    assert rig.observer.refusals == [("bad_request", "head_size")]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS to a plain port
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (HANDSHAKE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        (HANDSHAKE.replace(b": 13", b": 12"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Host: x\r\nbad header"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Host: x\r\n folded: y"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Host: x\x00y"), 400),
    ],
)
async def test_a_request_that_is_no_handshake_gets_an_http_answer(serve, head, status):
    rig = await serve()
    async with wire(rig, handshake=False) as raw:
        raw.send(head)
        assert (await raw.end()).startswith(b"HTTP/1.1 %d " % status)
    assert len(rig.observer.refusals) == 1
    assert rig.opened == []


async def test_a_refusal_is_read_by_a_client_that_writes_on(serve):
    rig = await serve()
    rig.refuse = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "admission", reason="x", retry_ms=5)
    async with wire(rig, handshake=False) as raw:
        raw.send(HANDSHAKE + b"x" * 100_000)
        answer = await raw.end()
    assert b"Tidegate-Retry-After-Ms: 5" in answer
