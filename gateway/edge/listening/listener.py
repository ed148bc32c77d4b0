"""Accepts connections with a budget, so that a storm never starves the devices already served.

The loop's own server accepts until the backlog is empty before anything else runs. Here a turn of
the loop spends at most a slice of time on knocks, and another on making connections
(`connector.py`); the rest wait in the kernel's backlog and in ours (`sliced.py` says why).
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Final

import structlog

from gateway.edge.errors import ListenError
from gateway.edge.listening.connector import Connector
from gateway.edge.listening.sockets import bind, port_of
from gateway.edge.observer import EdgeObserver

_log = structlog.get_logger(__name__)

_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S: Final = 0.5
_MISSED_S: Final = 0.002
"""How long a process rests that came too late for a connection; doubled with each time."""
_DOUBLINGS_MAX: Final = 3
_GATHER_S: Final = 0.002
"""How long connections gather for a process that shares the queue and has just emptied it twice."""


class Listener:
    """The listening sockets of one address."""

    def __init__(
        self,
        connector: Connector,
        *,
        accept_budget: int,
        accept_slice_s: float,
        observer: EdgeObserver,
        knock: Callable[[socket.SocketType, str], None] | None = None,
        leave_s: Callable[[], float] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            connector: makes connections of accepted sockets.
            accept_budget: connections accepted a turn of the loop.
            accept_slice_s: time that a turn may spend on accepting.
            observer: hooks for metrics.
            knock: takes a plain socket and its address before it becomes a connection. It is not
                used while TLS is on.
            leave_s: for how long connections must be left to the other processes that accept from
                the same sockets; 0 to accept now. None if there are no others. It is asked once a
                turn.
            between: called after the connections that a turn accepts (`sliced.py`).
        """
        self._connector = connector
        self._accept_budget = accept_budget
        self._accept_slice_s = accept_slice_s
        self._observer = observer
        self._knock = knock
        self._leave_s = leave_s
        self._between = between
        self._turn_at = 0.0
        self._missed = 0
        """Turns in which other processes had taken every connection, since one was needed here."""
        self._sockets: list[socket.socket] = []
        self._resume: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def opening(self) -> int:
        """Accepted sockets of which connections are being made."""
        return len(self._connector)

    async def start(self, host: str, port: int, backlog: int) -> int:
        """Bind and accept.

        Args:
            host: the address to bind.
            port: likewise; 0 for a free one.
            backlog: connections that the kernel keeps waiting.

        Returns:
            The port, chosen by the system if `port` is 0.

        Raises:
            ListenError: the address cannot be bound.
        """
        try:
            listening = await bind(host, port, backlog)
        except OSError as exc:
            raise ListenError(host, port, exc) from exc
        return self.start_on(listening)

    def start_on(self, listening: list[socket.socket]) -> int:
        """Accept from these sockets, which listen already, and close them in the end.

        Returns:
            Their port.
        """
        self._sockets = listening
        self._listen()
        return port_of(listening)

    async def stop(self) -> None:
        """Accept no more, and drop what is not a connection yet."""
        if self._resume is not None:
            self._resume.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        await self._connector.stop()

    def _listen(self) -> None:
        self._resume = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        if self._leave_s is not None and (leave_s := self._leave_s()):
            self._rest(leave_s)
            return
        self._accept_slice(listening)
        self._between()

    def _accept_slice(self, listening: socket.socket) -> None:
        connector = self._connector
        knock = None if connector.has_tls else self._knock
        family = int(listening.family)
        began = perf_counter()
        end = began + self._accept_slice_s
        for number in range(self._accept_budget):
            try:
                # Neither accept() nor a socket.socket of the result: both spend more on enums and
                # Python's own bookkeeping than on the system's call. `SocketType` is the plain
                # type underneath.
                descriptor, address = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001  # as above
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                if self._leave_s is not None:
                    self._emptied(number, began)
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
                connector.await_first_byte(accepted)
            if perf_counter() > end:
                break
        self._missed = 0  # more have come than one turn accepts: this process is needed

    def _pause(self, exc: OSError) -> None:
        self._observer.accept_failed()
        _log.error("accept_failed", error=str(exc), pause_s=_PAUSE_S)
        self._rest(_PAUSE_S)

    def _emptied(self, accepted: int, began: float) -> None:
        """A turn that began then has accepted so many, and the queue is empty.

        Every connection wakes all processes that share the queue, and a process that wakes for one
        or two pays more for its cold caches than for them. One process alone is busy all the time
        in a storm, and finds many at each turn. So if turns follow each other soon, the next one
        waits until more have come.
        """
        if not accepted:
            self._came_late()
        elif began - self._turn_at < 2 * _GATHER_S:
            self._rest(_GATHER_S)
        self._turn_at = began

    def _came_late(self) -> None:
        """A connection wakes every process that accepts from the same socket, and one gets it.

        Those that come too late again and again stay away for a moment, since each of their turns
        is for nothing. They do so until they find more connections than one turn accepts: while
        each turn empties the queue, one process is enough for it.
        """
        self._rest(_MISSED_S * 2 ** min(self._missed, _DOUBLINGS_MAX))
        self._missed += 1

    def _rest(self, rest_s: float) -> None:
        """The readers are level-triggered: without a rest, this would spin at 100 % CPU."""
        for each in self._sockets:
            self._loop.remove_reader(each)
        self._resume = self._loop.call_later(rest_s, self._listen)
