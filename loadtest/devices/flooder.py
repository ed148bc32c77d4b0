"""A device that floods the gateway with one kind of frame, as fast as the gateway takes it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from loadtest.devices.connection import Connection
from loadtest.devices.wire import (
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ack_of,
    handshake_request,
    is_welcome,
    masked_frame,
    resume_of,
)

_BLOB_BYTES: Final = 65_536
_RECONNECT_S: Final = 0.2
_LARGE: Final = b'"%b"' % (b"x" * 65_000)
_DEEP: Final = b"[" + b",".join([b"[" * 31 + b"]" * 31] * 1_030) + b"]"


def _text(frame: object) -> bytes:
    return masked_frame(TEXT, json.dumps(frame, separators=(",", ":")).encode())


def _unfinished(opcode: int) -> bytes:
    """A frame without FIN: a fragment of a message that never ends."""
    whole = masked_frame(opcode, b"x")
    return bytes([whole[0] & 0x7F]) + whole[1:]


def _message(body: bytes) -> Callable[[int], bytes]:
    return lambda seq: masked_frame(TEXT, b'{"seq":%d,%b}' % (seq, body))


_SIDE: Final[dict[str, Callable[[str], bytes]]] = {
    "ping": lambda _token: masked_frame(PING, b""),
    "pong": lambda _token: masked_frame(PONG, b"x" * 125),
    "fragment": lambda _token: _unfinished(TEXT) + _unfinished(CONTINUATION) * 60,
    "result": lambda _token: _text({"result": {"id": "x", "ok": True}}),
    "large result": lambda _token: _text(
        {"result": {"id": "x", "ok": True, "data": "x" * 250_000}}
    ),
    "credential": lambda token: _text({"credential": token}),
    "forged": lambda token: _text({"credential": token[:-4] + "AAAA"}),
    "hello": lambda _token: _text({"hello": {"outbox": "again", "oldest": 1, "sent": 0}}),
    "nothing": lambda _token: _text([]),
}
"""Frames that need no credit: they are sent as fast as the socket takes them."""
_MESSAGES: Final = {
    "tiny messages": _message(b'"type":"t","data":0'),
    "large messages": _message(b'"type":"t","data":%b' % _LARGE),
    "deep messages": _message(b'"type":"t","data":%b' % _DEEP),
    "refused messages": _message(b'"type":"!","data":%b' % _LARGE),
    "damaged messages": _message(b'"type":7,"data":"%b"' % (b"x" * 200)),
}
"""Messages, each in a frame of its own: they are sent as credit allows."""
KINDS: Final = (*_SIDE, *_MESSAGES)


class Flooder(Connection):
    """One connection that sends one kind of frame."""

    def __init__(self, kind: str, token: str, on_lost: Callable[[], None]) -> None:
        """
        Args:
            kind: one of `KINDS`.
            token: the device's credential.
            on_lost: called when the connection is gone.
        """
        super().__init__()
        self._token = token
        self._on_lost = on_lost
        self._message = _MESSAGES.get(kind)
        unit = _SIDE[kind](token) if kind in _SIDE else b""
        self._blob = unit * max(1, _BLOB_BYTES // len(unit)) if unit else b""
        self._pours = False
        """Whether the blob is sent now."""
        self._sent = 0
        self.written = 0

    def request(self) -> bytes:
        return handshake_request(self._token.encode())

    def greeting(self) -> bytes:
        return _text({"hello": {"outbox": "flood", "oldest": 1, "sent": 0}})

    def heard(self, payload: bytes) -> None:
        settled = ack_of(payload)
        if settled is not None:
            self._send_to(sum(settled))
        elif is_welcome(payload):
            self._sent, credit = resume_of(payload)
            self._send_to(self._sent + credit)
            self._pours = True
            assert self.transport is not None
            self.transport.set_write_buffer_limits(high=_BLOB_BYTES)
            self._pour()

    def refused(self, response: bytes) -> None:
        del response
        self.abort()

    def lost(self) -> None:
        self._pours = False
        self._on_lost()

    def pause_writing(self) -> None:
        self._pours = False

    def resume_writing(self) -> None:
        self._pours = True
        self._pour()

    def write(self, data: bytes) -> None:
        self.written += len(data)
        super().write(data)

    def _send_to(self, limit: int) -> None:
        while self._message is not None and self._sent < limit:
            self._sent += 1
            self.write(self._message(self._sent))

    def _pour(self) -> None:
        while self._blob and self._pours:
            self.write(self._blob)


@contextlib.asynccontextmanager
async def flooding(port: int, kind: str, token: str) -> AsyncIterator[list[Flooder]]:
    """A device that floods, and connects again whenever it is closed.

    Yields:
        Its connections so far, which grow in number.
    """
    flooders = list[Flooder]()
    task = asyncio.create_task(_flood(port, partial(Flooder, kind, token), flooders), name="flood")
    try:
        yield flooders
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for flooder in flooders:
            flooder.abort()


async def _flood(
    port: int, make: Callable[[Callable[[], None]], Flooder], flooders: list[Flooder]
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        lost = asyncio.Event()
        _transport, flooder = await loop.create_connection(
            partial(make, lost.set), "127.0.0.1", port
        )
        flooders.append(flooder)
        await lost.wait()
        await asyncio.sleep(_RECONNECT_S)
