"""Accepts connections with a budget, so that a storm never starves those already served.

The loop's own server accepts until the backlog is empty before it returns to anybody else. Here
a turn of the loop spends at most a slice of time on knocks, and another on connections that were
let in; the rest wait in the kernel's backlog and in ours (`sliced.py` says why).

With TLS, a connection that has said nothing is a bare socket, and becomes a TLS handshake with its
first byte. Both wait in the anteroom, which is bounded.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from time import perf_counter
from typing import Final

import structlog

from gateway.edge.anteroom import Anteroom
from gateway.edge.errors import ListenError
from gateway.edge.observer import EdgeObserver
from gateway.edge.sliced import Sliced

_log = structlog.get_logger(__name__)

_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S: Final = 0.5
_Factory = Callable[[], asyncio.Protocol]


class Listener:
    """A listening socket and the connections on their way through TLS."""

    def __init__(
        self,
        protocol_factory: _Factory,
        *,
        accept_budget: int,
        accept_slice_s: float,
        backlog: int,
        tls: Callable[[], ssl.SSLContext | None],
        tls_handshake_timeout_s: float,
        anteroom: Anteroom,
        observer: EdgeObserver,
        knock: Callable[[socket.SocketType, str], None] | None = None,
    ) -> None:
        """
        Args:
            protocol_factory: makes the protocol of a new connection.
            accept_budget: connections accepted a turn of the loop.
            accept_slice_s: time a turn may go on accepting, and as long again for making
                connections of who was let in. What has been begun is finished.
            backlog: connections the kernel keeps waiting.
            tls: the certificate in force now, or None for plain TCP.
            tls_handshake_timeout_s: how long a TLS handshake may take.
            anteroom: where TLS connections wait until their handshake is done.
            observer: hooks for metrics.
            knock: takes a plain socket and its address before it becomes a connection; whoever is
                let in comes back through `connect`. Never used with TLS.
        """
        self._protocol_factory = protocol_factory
        self._accept_budget = accept_budget
        self._accept_slice_s = accept_slice_s
        self._backlog = backlog
        self._tls = tls
        self.tls_handshake_timeout_s = tls_handshake_timeout_s
        self.anteroom = anteroom
        self._observer = observer
        self._knock = knock
        self._sockets: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self.silent: set[_Silent] = set()
        self._resume: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()
        self._let_in: Sliced[tuple[socket.SocketType, _Factory]] = Sliced(
            self.loop, accept_slice_s, self._make_connection
        )

    async def start(self, host: str, port: int) -> int:
        """Bind and accept.

        Returns:
            The port, chosen by the system if `port` is 0.

        Raises:
            ListenError: the address cannot be bound.
        """
        try:
            port = await self._bind(host, port)
        except OSError as exc:
            raise ListenError(host, port, exc) from exc
        self._listen()
        return port

    async def _bind(self, host: str, port: int) -> int:
        infos = await self.loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _name, address in dict.fromkeys(infos):
            listening = socket.socket(family, kind, protocol)
            self._sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            # All addresses of a host share the port the first one was given.
            listening.bind((address[0], port, *address[2:]))
            port = listening.getsockname()[1]
            listening.listen(self._backlog)
        return port

    async def stop(self) -> None:
        """Accept no more, and drop what has not finished its TLS handshake."""
        if self._resume is not None:
            self._resume.cancel()
        for listening in self._sockets:
            self.loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for accepted, _factory in self._let_in.clear():
            accepted.close()
        for silent in list(self.silent):
            silent.abort("stopped")
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    def _listen(self) -> None:
        self._resume = None
        for listening in self._sockets:
            self.loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        knock = self._knock if self._tls() is None else None
        family = int(listening.family)
        end = perf_counter() + self._accept_slice_s
        for _ in range(self._accept_budget):
            try:
                # Not accept(), nor a socket.socket of it: both pay more for enums and Python's own
                # bookkeeping than for the system's call. `SocketType` is the plain one underneath.
                descriptor, address = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                self._pause(exc)
                return
            accepted = socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)
            self._observer.accepted()
            if knock is not None:
                knock(accepted, address[0])
            else:
                self.hear_first_byte(accepted)
            if perf_counter() > end:
                return

    def _pause(self, exc: OSError) -> None:
        """Level-triggered: without a pause this would spin at 100 % CPU."""
        self._observer.accept_failed()
        _log.error("accept_failed", error=str(exc), pause_s=_PAUSE_S)
        for each in self._sockets:
            self.loop.remove_reader(each)
        self._resume = self.loop.call_later(_PAUSE_S, self._listen)

    def hear_first_byte(self, accepted: socket.SocketType) -> None:
        """Begin the TLS handshake of `accepted` as soon as there is something to read."""
        try:
            said = accepted.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            _Silent(self, accepted)
            return
        except OSError:
            said = b""
        if said:
            self.connect(accepted, self._protocol_factory)
        else:
            self.gone(accepted)

    def gone(self, accepted: socket.SocketType) -> None:
        """A peer left, or said nothing for too long."""
        accepted.close()
        self._observer.refused("tls", "gone")

    def connect(self, accepted: socket.SocketType, protocol_factory: _Factory) -> None:
        """Make a connection of an accepted socket, when its turn comes."""
        self._let_in.add((accepted, protocol_factory))

    def _make_connection(self, let_in: tuple[socket.SocketType, _Factory]) -> None:
        accepted, protocol_factory = let_in
        whole = socket.socket(accepted.family, socket.SOCK_STREAM, 0, fileno=accepted.detach())
        whole.setblocking(False)
        with contextlib.suppress(OSError):
            whole.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self.loop.create_task(self._open(whole, protocol_factory))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """An error that no peer can cause is a fault of ours, and must be seen."""
        self._opening.discard(opening)
        if not opening.cancelled() and (failure := opening.exception()) is not None:
            _log.error("connection_failed", exc_info=failure)

    async def _open(self, accepted: socket.socket, protocol_factory: _Factory) -> None:
        try:
            await self._hand_over(accepted, protocol_factory)
        except BaseException:
            accepted.close()
            raise

    async def _hand_over(self, accepted: socket.socket, protocol_factory: _Factory) -> None:
        context = self._tls()
        if context is None:
            try:
                await self.loop.connect_accepted_socket(protocol_factory, accepted)
            except OSError:
                # A peer that left: nobody to tell.
                accepted.close()
                self._observer.refused("bad_request", "gone")
            return
        handshake = _Handshake(asyncio.current_task())
        self.anteroom.enter(handshake)
        try:
            await self.loop.connect_accepted_socket(
                protocol_factory,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self.tls_handshake_timeout_s,
            )
        except OSError:
            # A handshake that failed or a peer that left: nobody to tell.
            self.gone(accepted)
        finally:
            self.anteroom.leave(handshake)


class _Handshake:
    """A TLS handshake, as a guest of the anteroom."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None] | None) -> None:
        self._task = task

    def abort(self, _cause: str) -> None:
        if self._task is not None:
            self._task.cancel()


class _Silent:
    """An accepted socket whose peer has not begun its TLS handshake."""

    __slots__ = ("_listener", "_socket", "_timer")

    def __init__(self, listener: "Listener", accepted: socket.SocketType) -> None:
        self._listener = listener
        self._socket = accepted
        loop = listener.loop
        loop.add_reader(accepted, self._on_readable)
        self._timer = loop.call_later(listener.tls_handshake_timeout_s, self._on_timeout)
        listener.silent.add(self)
        listener.anteroom.enter(self)

    def abort(self, _cause: str) -> None:
        self._detach().close()

    def _on_timeout(self) -> None:
        self._listener.gone(self._detach())

    def _on_readable(self) -> None:
        self._listener.hear_first_byte(self._detach())

    def _detach(self) -> socket.SocketType:
        listener, accepted = self._listener, self._socket
        listener.loop.remove_reader(accepted)
        self._timer.cancel()
        listener.silent.discard(self)
        listener.anteroom.leave(self)
        return accepted
