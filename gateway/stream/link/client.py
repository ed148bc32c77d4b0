"""nats-py's client as this room uses it: handlers without a queue, and direct writes.

nats-py can reconnect by itself, but waits a fixed time, so every gateway of a fleet returns in the
same instant, and it closes for good on an authorization error. Here each connection is a fresh
client that never reconnects: `dialing.py` makes it, and `link.py` the next one.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from gateway import tasks
from gateway.stream.link.direct_reading import DirectReading
from gateway.stream.link.parsing import BulkParser, RawHandler

_log = structlog.get_logger(__name__)

_CONNECTED: Final = Client.CONNECTED
_CLOSE_S: Final = 1.0

EXACT_SID_MIN: Final = 2**40
"""Numbers of subscriptions from here on belong to `hear_exact`; nats-py counts its own from 1."""

Headers = dict[str, str] | None
DirectHandler = Callable[[str, bytes, Headers], None]
"""Takes subject, payload and headers of a message, in the task that reads the socket."""
ExactHandler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Takes subject, reply, payload and headers of a message, in the task that reads the socket."""


def _ignore(_subject: bytes, _reply: bytes, _data: bytes, _headers: bytes | None) -> None:
    """The handler of a client on which no exact subject is heard."""


class LinkClient(Client):
    """nats-py's client, with subscriptions whose messages wait in no queue, and a direct write.

    Acknowledgements pass here. If they waited in a queue for a task, every device would wait one
    more turn of the event loop for its ack.
    """

    def __init__(self, on_lost: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            on_lost: the connection is gone. May be called more than once.
        """
        super().__init__()
        self._on_lost = on_lost
        self._direct: dict[int, DirectHandler] = {}
        self._raw: dict[int, RawHandler] = {}
        self._exact: ExactHandler = _ignore
        self._ps = self._bulk = BulkParser(self, self._raw)
        self._hand_over: Callable[[bytes], None] = self._hand_over_to_nats
        self.look: Callable[[], None] = lambda: None
        """Reads what has come by now, without a wait for the loop's next poll."""

    def read_directly(self) -> None:
        """Deliver messages for `subscribe_raw` as soon as the loop has read them."""
        nats_transport = self._transport
        if isinstance(nats_transport, TcpTransport):  # not over a WebSocket
            assert nats_transport._io_writer is not None  # noqa: SLF001  # no public name for it
            transport = cast("asyncio.Transport", nats_transport._io_writer.transport)  # noqa: SLF001  # as above
            reader = cast("asyncio.Protocol", transport.get_protocol())
            reading = DirectReading(reader, self._bulk, transport)
            transport.set_protocol(reading)
            self.look = reading.look
            self._hand_over = transport.write  # without two calls of wrappers for each message

    @property
    def server_name(self) -> str:
        """What the server calls itself."""
        return str(self._server_info.get("server_name", ""))

    def write(self, data: bytes) -> bool:
        """Hand complete protocol commands to the socket now.

        nats-py's own `publish` takes one message, validates what is allow-listed already, and
        leaves the bytes to a task that runs after the loop's turn. That costs too much a message,
        and it is too late when a thousand sockets are ready in one turn. A batch is one write here.

        Returns:
            False if there is no connection.
        """
        if self._status != _CONNECTED and not self.is_connected:  # it may be draining
            return False
        self._hand_over(data)
        return True

    def _hand_over_to_nats(self, data: bytes) -> None:
        assert self._transport is not None  # set while connected
        self._transport.write(data)

    def _process_disconnect(self) -> None:
        """The connection is gone. nats-py says so before it closes what is left of it.

        Its callbacks come after that, and not at all if closing raises or waits for ever: with
        data still to be sent, `_close` drains a dead transport, and in its flusher's task it waits
        for that task (nats-py 2.16).
        """
        super()._process_disconnect()
        self._on_lost()

    async def _read_loop(self) -> None:
        """Whatever ends the reading ends the connection.

        nats-py only logs an error that is neither one of the protocol nor of the socket, and goes
        on as if it were connected. After a reset it writes what is pending to the transport that
        is closed, which uvloop refuses (nats-py 2.16).
        """
        try:
            await super()._read_loop()
        except RuntimeError as exc:
            _log.debug("nats_close_failed", error=repr(exc))
        if self.is_connected:
            await self._process_op_err(nats.errors.UnexpectedEOF())

    async def subscribe_raw(self, subject: str, handler: RawHandler) -> Subscription:
        """As `subscribe_direct`, for readers of a stream: headers are left as they came.

        nats-py makes a dictionary of each message's headers, which costs more than all the rest.
        """
        subscription = await self.subscribe(subject)
        self._raw[subscription._id] = handler  # noqa: SLF001  # no public name for it
        return subscription

    async def unsubscribe_raw(self, subscription: Subscription) -> None:
        """End such a subscription, and forget its handler.

        Raises:
            nats.errors.Error: the connection is lost.
        """
        self._raw.pop(subscription._id, None)  # noqa: SLF001  # no public name for it
        # The iterator refers to the subscription: only the collector would find this cycle.
        subscription._message_iterator = None  # noqa: SLF001  # no public name for it
        await subscription.unsubscribe()

    def hear_exact(self, handler: ExactHandler) -> None:
        """Have `handler` called for every message of a subscription from `EXACT_SID_MIN` on.

        The caller writes the SUB and UNSUB lines itself (`commands/interest.py` says why).
        """
        self._exact = handler

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        handler = self._raw.get(sid)
        if handler is not None:
            handler(subject, reply, data, headers)
        elif sid >= EXACT_SID_MIN:
            self._exact(subject, reply, data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # it takes None

    async def subscribe_direct(self, subject: str, handler: DirectHandler) -> None:
        """Have the reading task call `handler` for every message on `subject`."""
        subscription = await self.subscribe(subject)
        self._direct[subscription._id] = handler  # noqa: SLF001  # no public name for it

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: Headers,
    ) -> Any:
        handler = self._direct.get(sid)
        if handler is None:
            return super()._build_message(sid, subject, reply, data, headers)
        handler(subject.decode(), data, headers)
        return None  # nothing to queue

    async def discard(self) -> None:
        """Close within a second, whatever state the connection is in, and whoever cancels this.

        `close` alone can wait for ever: after a refused certificate it waits for the transport
        that the TLS handshake has replaced. Cancelled, or after an error of its own, it leaves the
        socket open.
        """
        closing = asyncio.create_task(self.close(), name="nats-close")
        try:
            await asyncio.wait({closing}, timeout=_CLOSE_S)
        finally:
            if not closing.done():
                await tasks.end(closing)
            elif not closing.cancelled() and closing.exception() is not None:
                _log.debug("nats_close_failed", error=repr(closing.exception()))
            self._hang_up()

    def _hang_up(self) -> None:
        """Close the socket if that has not been done."""
        if isinstance(self._transport, TcpTransport):  # aiohttp ends those of a WebSocket
            for writer in (self._transport._io_writer, self._transport._bare_io_writer):  # noqa: SLF001  # no public names
                if writer is not None:
                    writer.transport.abort()
