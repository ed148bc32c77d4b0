"""A pull consumer without acks, as the reader of a stream sees it."""

import contextlib
import json
from typing import Final

import nats.errors
from nats.aio.subscription import Subscription

from gateway.beats import Wake
from gateway.stream.header_block import header_of
from gateway.stream.link.client import LinkClient

_HEARTBEAT_NS: Final = 2_000_000_000
_EXPIRES_NS: Final = 20_000_000_000
_DELETE_TIMEOUT_S: Final = 1.0
_STATUS_BYTES: Final = 12  # "NATS/1.0 409"


class PullConsumer:
    """A consumer on the server, as long as it is of use.

    It ends for a reason: a gap, a status of the server, the reader's patience.
    """

    __slots__ = (
        "_name",
        "_stream",
        "asked",
        "client",
        "delivered",
        "ended",
        "heard",
        "inbox",
        "reason",
        "subscription",
    )

    def __init__(self, client: LinkClient, stream: str, name: str, inbox: str) -> None:
        self._stream = stream
        self._name = name
        self.client = client
        self.inbox = inbox
        self.asked = 0
        """Messages asked for that have not come yet."""
        self.delivered = 0
        self.heard = False
        """Whether anything came since the reader last looked."""
        self.ended = Wake()
        self.reason = ""
        self.subscription: Subscription | None = None

    def pull(self, messages: int) -> None:
        """Ask for so many more messages."""
        body = json.dumps(
            {"batch": messages, "expires": _EXPIRES_NS, "idle_heartbeat": _HEARTBEAT_NS}
        ).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        command = b"PUB %b %b %d\r\n%b\r\n" % (
            subject.encode(),
            self.inbox.encode(),
            len(body),
            body,
        )
        if self.client.write(command):
            self.asked += messages

    def on_status(self, headers: bytes) -> None:
        """The server said something that is no message."""
        status = headers[_STATUS_BYTES - 3 : _STATUS_BYTES]
        if status == b"100":
            return  # a heartbeat
        if status in (b"404", b"408"):
            # This request is over; the server says how much of it was not used.
            told = header_of(headers, b"Nats-Pending-Messages")
            unused = int(told) if told.isdigit() else 0
            self.asked = max(0, self.asked - unused) if unused else 0
        elif status == b"409" and b"exceeded" in headers.lower():
            self.asked = 0
        else:
            line = headers.partition(b"\r\n")[0].decode(errors="replace")
            self.end(line.removeprefix("NATS/1.0 ") or "no responders")

    def end(self, reason: str) -> None:
        """It is of no use any more."""
        self.reason = reason
        self.ended.set()

    async def close(self) -> None:
        """Leave nothing on the server, if it can still be told."""
        self.ended.set()
        client = self.client
        if self.subscription is not None and client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await client.unsubscribe_raw(self.subscription)
                jetstream = client.jetstream(timeout=_DELETE_TIMEOUT_S)
                await jetstream.delete_consumer(self._stream, self._name)
