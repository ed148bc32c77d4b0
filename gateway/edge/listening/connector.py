"""Makes connections of accepted sockets: some a turn of the loop, and through TLS where it is on.

With TLS, a connection that has sent nothing is a bare socket, and begins its TLS handshake with its
first byte. Both wait in the anteroom, which is bounded.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog

from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.anteroom import Anteroom
from gateway.edge.ports import Granted
from gateway.edge.sliced import Sliced

_log = structlog.get_logger(__name__)

_LATER_S: Final = 60e-6
"""What a connection that is begun counts beyond the slice, for the work up to its welcome that the
turns after it do. So a turn begins about four; without it ten, and each turn made the next one
longer. Counted in full it would be two or three. When that work took 200 us, one process admitted a
seventh fewer devices a second with two, because each turn has fixed work too; at the 120 us of
today neither that nor the acks in a cut differ ("What an admission costs" in loadtest/README.md).
"""

Admitted = tuple[socket.SocketType, bytes, Granted | None]
"""A socket, the bytes read from it, and what it was admitted on."""


class Connector:
    """The one way from an accepted socket to a transport with a protocol."""

    def __init__(
        self,
        make_protocol: Callable[[bytes, Granted | None], asyncio.Protocol],
        *,
        slice_s: float,
        tls: Callable[[], ssl.SSLContext | None],
        tls_handshake_timeout_s: float,
        anteroom: Anteroom,
        observer: EdgeObserver,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            make_protocol: makes the protocol of a connection, from the bytes that were read from
                its socket and what it was admitted on.
            slice_s: time that a turn of the loop may spend on making connections. A connection
                that was begun is finished.
            tls: the certificate in force now, or None for plain TCP.
            tls_handshake_timeout_s: how long a TLS handshake may take.
            anteroom: where TLS connections wait until their handshake is done.
            observer: hooks for metrics.
            between: called after each slice (`sliced.py`).
        """
        self._make_protocol = make_protocol
        self._tls = tls
        self.tls_handshake_timeout_s = tls_handshake_timeout_s
        self.anteroom = anteroom
        self._observer = observer
        self.silent: set[_Silent] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self._queue: Sliced[Admitted] = Sliced(
            self.loop, slice_s, self._begin, later_s=_LATER_S, between=between
        )

    def __len__(self) -> int:
        """Connections that are being made."""
        return len(self._opening)

    @property
    def has_tls(self) -> bool:
        """Whether new connections use TLS."""
        return self._tls() is not None

    def connect(
        self, accepted: socket.SocketType, head: bytes = b"", granted: Granted | None = None
    ) -> None:
        """Make a connection of an accepted socket when its turn comes.

        Args:
            accepted: the socket.
            head: what was read from it already.
            granted: on what it was admitted, if the raw scan has read its petition.
        """
        self._queue.add((accepted, head, granted))

    def await_first_byte(self, accepted: socket.SocketType) -> None:
        """Make a connection of `accepted` as soon as there is something to read."""
        try:
            first = accepted.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            _Silent(self, accepted)
            return
        except OSError:
            first = b""
        if first:
            self.connect(accepted)
        else:
            self.gone(accepted)

    def gone(self, accepted: socket.SocketType) -> None:
        """A peer left before its TLS handshake was done, or sent nothing for too long."""
        accepted.close()
        self._observer.refused("tls", "gone")

    async def stop(self) -> None:
        """Drop every socket that has no protocol yet."""
        for accepted, _head, _granted in self._queue.clear():
            accepted.close()
        for silent in list(self.silent):
            silent.abort("stopped")
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    def _begin(self, admitted: Admitted) -> None:
        accepted, head, granted = admitted
        # Of a socket of this protocol, the loop sets TCP_NODELAY.
        whole = _Accepted(
            accepted.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=accepted.detach()
        )
        whole.setblocking(False)
        task = self.loop.create_task(self._open(whole, head, granted))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """An error that no peer can cause is a fault of the gateway, and must be seen."""
        self._opening.discard(opening)
        if not opening.cancelled() and (failure := opening.exception()) is not None:
            _log.error("connection_failed", exc_info=failure)

    async def _open(self, accepted: socket.socket, head: bytes, granted: Granted | None) -> None:
        context = self._tls()
        try:
            if context is None:
                await self.loop.connect_accepted_socket(
                    lambda: self._make_protocol(head, granted), accepted
                )
            else:
                await self._shake_hands(accepted, context)
        except OSError:
            # The peer left, or its TLS handshake failed: no answer can reach it.
            accepted.close()
            error = "bad_request" if context is None else "tls"
            self._observer.refused(error, "gone")
        except BaseException:  # the socket must not outlive its task, whatever ended it
            accepted.close()
            raise

    async def _shake_hands(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        handshake = _Handshake(asyncio.current_task())
        self.anteroom.enter(handshake)
        try:
            await self.loop.connect_accepted_socket(
                lambda: self._make_protocol(b"", None),
                accepted,
                ssl=context,
                ssl_handshake_timeout=self.tls_handshake_timeout_s,
            )
        finally:
            self.anteroom.leave(handshake)


class _Accepted(socket.socket):
    """A socket that tells family and type as numbers, which is all that the loop asks for. To look
    them up in their enums costs more than the system's calls do.
    """

    __slots__ = ()
    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


class _Handshake:
    """A TLS handshake, as the anteroom knows it."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None] | None) -> None:
        self._task = task

    def abort(self, _cause: str) -> None:
        if self._task is not None:
            self._task.cancel()


class _Silent:
    """An accepted socket whose peer has not begun its TLS handshake."""

    __slots__ = ("_connector", "_socket", "_timer")

    def __init__(self, connector: Connector, accepted: socket.SocketType) -> None:
        self._connector = connector
        self._socket = accepted
        loop = connector.loop
        loop.add_reader(accepted, self._on_readable)
        self._timer = loop.call_later(connector.tls_handshake_timeout_s, self._on_timeout)
        connector.silent.add(self)
        connector.anteroom.enter(self)

    def abort(self, _cause: str) -> None:
        self._detach().close()

    def _on_timeout(self) -> None:
        self._connector.gone(self._detach())

    def _on_readable(self) -> None:
        self._connector.await_first_byte(self._detach())

    def _detach(self) -> socket.SocketType:
        connector, accepted = self._connector, self._socket
        connector.loop.remove_reader(accepted)
        self._timer.cancel()
        connector.silent.discard(self)
        connector.anteroom.leave(self)
        return accepted
