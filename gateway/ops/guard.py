"""Bounds on the connections of the operators' port, around aiohttp's own protocol.

aiohttp waits without a bound for the head of a first request, and for a peer that does not read its
answer. The guard ends both kinds of connection. It also bounds the number of connections: a new one
replaces the one that has been silent for longest, so a peer that opens many cannot keep an operator
out.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

CONNECTIONS_MAX: Final = 64
HEAD_BYTES_MAX: Final = 16_384
HEAD_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 10.0

_END_OF_HEAD: Final = b"\r\n\r\n"


class ConnectionGuard:
    """The connections of one listener."""

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        loop: asyncio.AbstractEventLoop,
        connections_max: int = CONNECTIONS_MAX,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        """
        Args:
            make_protocol: of each connection; called for each.
            loop: that runs them.
            connections_max: at once.
            head_timeout_s: until the first head is complete.
            write_timeout_s: for how long a peer may read nothing of an answer.
        """
        self._make_protocol = make_protocol
        self.loop = loop
        self._connections_max = connections_max
        self.head_timeout_s = head_timeout_s
        self.write_timeout_s = write_timeout_s
        self._silent_first: dict[_Guarded, None] = {}

    def __len__(self) -> int:
        return len(self._silent_first)

    def connect(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Guarded(self, self._make_protocol())

    def opened(self, connection: "_Guarded") -> None:
        """Count a new connection. If there are too many, end the one that is silent for longest."""
        self._silent_first[connection] = None
        if len(self._silent_first) > self._connections_max:
            next(iter(self._silent_first)).abort()

    def spoke(self, connection: "_Guarded") -> None:
        """A connection has sent something: it is the last to be replaced now."""
        if connection in self._silent_first:
            del self._silent_first[connection]
            self._silent_first[connection] = None

    def ended(self, connection: "_Guarded") -> None:
        """A connection has ended."""
        self._silent_first.pop(connection, None)


class _Guarded(asyncio.Protocol):
    """One connection: aiohttp's protocol behind deadlines."""

    def __init__(self, guard: ConnectionGuard, inner: asyncio.Protocol) -> None:
        self._guard = guard
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        """Whether the first head is incomplete."""
        self._head_bytes = 0
        self._head_tail = b""
        """The last bytes of the head: its end may come in two segments."""

    def abort(self) -> None:
        self._guard.ended(self)
        if self._transport is not None:
            self._transport.abort()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self._guard.loop.call_later(seconds, self.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)
        self._arm(self._guard.head_timeout_s)
        self._guard.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._guard.ended(self)
        self._inner.connection_lost(exc)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._guard.spoke(self)
        if self._in_head and not self._head_fits(data):
            self.abort()
            return
        self._inner.data_received(data)

    def _head_fits(self, data: bytes) -> bool:
        end = (self._head_tail + data).find(_END_OF_HEAD)
        self._head_bytes += len(data) if end < 0 else end
        self._head_tail = (self._head_tail + data)[-len(_END_OF_HEAD) + 1 :]
        if end >= 0:
            self._in_head = False
            self._disarm()
        return self._head_bytes <= HEAD_BYTES_MAX

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()
        self._arm(self._guard.write_timeout_s)

    def resume_writing(self) -> None:
        self._disarm()
        self._inner.resume_writing()
