"""One admitted device that floods, with each kind of frame in turn, beside quiet devices."""

import asyncio
import contextlib
import json
import re
import statistics
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, cast

from loadtest.benches.rig import Bench
from loadtest.devices.steady import SteadyDevices
from loadtest.devices.wire import frames_in, handshake_request, masked_frame
from loadtest.servers.targets import GatewayServer

_BLOB_BYTES: Final = 65_536
_RECONNECT_S: Final = 0.2
_ACK: Final = re.compile(rb'\{"ack":(\d+),"credit":(\d+)\}')
_CREDIT: Final = re.compile(rb'"credit":(\d+)')
_LARGE: Final = b'"%b"' % (b"x" * 65_000)
_DEEP: Final = b"[" + b",".join([b"[" * 31 + b"]" * 31] * 1_030) + b"]"


def _text(frame: object) -> bytes:
    return masked_frame(1, json.dumps(frame, separators=(",", ":")).encode())


def _message(body: bytes) -> Callable[[int], bytes]:
    return lambda seq: masked_frame(1, b'{"seq":%d,%b}' % (seq, body))


_SIDE: Final[dict[str, Callable[[str], bytes]]] = {
    "ping": lambda _token: masked_frame(9, b""),
    "pong": lambda _token: masked_frame(10, b"x" * 125),
    "fragment": lambda _token: (
        masked_frame(1, b"x").replace(b"\x81", b"\x01", 1)
        + masked_frame(0, b"x").replace(b"\x80", b"\x00", 1) * 60
    ),
    "result": lambda _token: _text({"result": {"id": "x", "ok": True}}),
    "large result": lambda _token: _text(
        {"result": {"id": "x", "ok": True, "data": "x" * 250_000}}
    ),
    "credential": lambda token: _text({"credential": token}),
    "forged": lambda token: _text({"credential": token[:-4] + "AAAA"}),
    "hello": lambda _token: _text({"hello": {"outbox": "again", "oldest": 1, "sent": 0}}),
    "nothing": lambda _token: _text([]),
}
"""What is sent as fast as the socket takes it."""
_MESSAGES: Final = {
    "tiny messages": _message(b'"type":"t","data":0'),
    "large messages": _message(b'"type":"t","data":%b' % _LARGE),
    "deep messages": _message(b'"type":"t","data":%b' % _DEEP),
    "refused messages": _message(b'"type":"!","data":%b' % _LARGE),
    "damaged messages": _message(b'"type":7,"data":"%b"' % (b"x" * 200)),
}
"""What is sent as credit allows, each message in a frame of its own."""
KINDS: Final = (*_SIDE, *_MESSAGES)


class Flooder(asyncio.Protocol):
    """Sends one kind of frame as fast as the gateway takes it."""

    def __init__(self, kind: str, token: str, lost: Callable[[], None]) -> None:
        self._token = token
        self._lost = lost
        self._blob = b""
        self._message = _MESSAGES.get(kind)
        if kind in _SIDE:
            unit = _SIDE[kind](token)
            self._blob = unit * max(1, _BLOB_BYTES // len(unit))
        self._buffer = b""
        self._inside = self._writable = False
        self._sent = 0
        self.written = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_BLOB_BYTES)
        self._writable = True
        self._transport.write(handshake_request(self._token.encode()))

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pour()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self._inside:
            end = data.find(b"\r\n\r\n")
            self._buffer = data
            if end < 0 or not data.startswith(b"HTTP/1.1 101"):
                return
            self._inside = True
            data = data[end + 4 :]
            self._write(_text({"hello": {"outbox": "flood", "oldest": 1, "sent": 0}}))
        position = 0
        for _opcode, payload, position in frames_in(data):  # noqa: B007  # the last one is used
            self._hear(payload)
        self._buffer = data[position:]

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hear(self, payload: bytes) -> None:
        acked = _ACK.match(payload)
        if acked is not None:
            self._send_to(int(acked[1]) + int(acked[2]))
        elif payload.startswith(b'{"welcome"'):
            credit = _CREDIT.search(payload)
            assert credit is not None
            seq = re.search(rb'"seq":(\d+)', payload)
            assert seq is not None
            self._sent = int(seq[1])
            self._send_to(self._sent + int(credit[1]))
            self._pour()

    def _send_to(self, limit: int) -> None:
        while self._message is not None and self._sent < limit:
            self._sent += 1
            self._write(self._message(self._sent))

    def _pour(self) -> None:
        while self._blob and self._writable and self._transport is not None:
            self._write(self._blob)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self.written += len(data)
            self._transport.write(data)


def _itself(flooder: Flooder) -> Flooder:
    return flooder


@contextlib.asynccontextmanager
async def flooding(port: int, kind: str, token: str) -> AsyncIterator[list[Flooder]]:
    """A device that floods, and connects again whenever it is closed."""
    loop, flooders = asyncio.get_running_loop(), list[Flooder]()

    async def flood() -> None:
        while True:
            lost = asyncio.Event()
            flooder = Flooder(kind, token, lost.set)
            flooders.append(flooder)
            await loop.create_connection(partial(_itself, flooder), "127.0.0.1", port)
            await lost.wait()
            await asyncio.sleep(_RECONNECT_S)

    task = asyncio.create_task(flood(), name="flood")
    try:
        yield flooders
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for flooder in flooders:
            flooder.abort()


async def section_flood(bench: Bench) -> None:
    """500 quiet devices, with and without one that floods, for each kind of frame."""
    rows = []
    worst = 0.0
    with bench.gateway() as gateway:
        tokens = [(f"quiet-{n}", bench.issuer.token(f"quiet-{n}")) for n in range(500)]
        async with SteadyDevices(gateway.port, tokens, rate_per_s=500, connect_per_s=500) as steady:
            for kind in KINDS:
                alone, beside, sent = await _turns(bench, gateway, steady, kind)
                quiet, loud = statistics.median(alone), statistics.median(beside)
                worst = max(worst, loud / quiet)
                rows.append(
                    (
                        kind,
                        " ".join(f"{value:.1f}" for value in alone),
                        " ".join(f"{value:.1f}" for value in beside),
                        f"{loud / quiet:.2f}",
                        f"{sent / 1e6:.2f}",
                    )
                )
        closed = gateway.metric('tidegate_sessions_closed_total{cause="flood"}')
        slowed = gateway.metric("tidegate_reads_slowed_total")
    bench.report.table(
        "500 quiet devices beside one that floods",
        ("kind", "ack p99 alone, ms", "beside", "ratio", "MB/s it could send"),
        rows,
    )
    bench.report.console.print(
        f"  read more slowly {slowed:.0f} times, closed {closed:.0f} times\n"
    )
    bench.report.verdict(
        "worst ack p99 beside a flood, over alone", worst, "at most 2", ok=worst <= 2
    )


async def _turns(
    bench: Bench, gateway: GatewayServer, steady: SteadyDevices, kind: str
) -> tuple[list[float], list[float], float]:
    """Ack p99 alone and beside, in turns, in milliseconds; bytes a second the flooder sent."""
    turns, phase_s = 3, max(3.0, bench.seconds / 3)
    alone, beside, sent = [], [], 0
    name = f"flooder-{kind.replace(' ', '-')}"
    for _turn in range(turns):
        await steady.seen()
        await asyncio.sleep(phase_s)
        alone.append((await steady.seen()).p99_ms)
        async with flooding(gateway.port, kind, bench.issuer.token(name)) as flooders:
            await asyncio.sleep(0.5)
            await steady.seen()
            await asyncio.sleep(phase_s)
            beside.append((await steady.seen()).p99_ms)
            sent += sum(flooder.written for flooder in flooders)
        await asyncio.sleep(0.5)
    return alone, beside, sent / (turns * (phase_s + 0.5))
