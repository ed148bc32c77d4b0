"""The port of the devices: listener, knocks and connections around one gate."""

import asyncio
import socket

from gateway.edge.anteroom import Anteroom
from gateway.edge.connection import WebSocketConnection
from gateway.edge.context import ConnectionContext, partings
from gateway.edge.gate import DeviceGate
from gateway.edge.knock import Granted, KnockContext
from gateway.edge.listener import Listener
from gateway.edge.wheel import TimingWheel
from gateway.node import limits
from gateway.node.basis import Basis
from gateway.node.certificate import Transport
from tidegate.wire import frames


class DevicePort:
    """Where devices connect."""

    def __init__(
        self,
        basis: Basis,
        *,
        gate: DeviceGate,
        anteroom: Anteroom,
        transport: Transport,
    ) -> None:
        """
        Args:
            basis: as everywhere.
            gate: decides on knocks.
            anteroom: for connections that have not said which device they are.
            transport: plain TCP, or TLS with the certificate in force.
        """
        server, loop = basis.settings.server, asyncio.get_running_loop()
        self._server = server
        self._gate = gate
        self._wheel = TimingWheel(loop)
        self._connections = _connection_context(basis, self._wheel, loop)
        bounds = self._connections.limits
        knocks = KnockContext(
            door=gate,
            wheel=self._wheel,
            observer=basis.observers.edge,
            loop=loop,
            head_bytes_max=bounds.head_bytes_max,
            head_timeout_s=bounds.head_timeout_s,
            upgrade=self._upgrade,
        )
        self.listener = Listener(
            self._connection,
            accept_budget=server.accept_budget,
            accept_slice_s=server.accept_slice_us / 1e6,
            backlog=server.backlog,
            tls=transport.context,
            tls_handshake_timeout_s=basis.settings.tls.handshake_timeout_ms / 1000,
            anteroom=anteroom,
            observer=basis.observers.edge,
            knock=knocks.knock,
        )
        self.port = server.port
        """Where devices connect, once it has started."""

    def _connection(self) -> WebSocketConnection:
        return WebSocketConnection(self._connections, self._gate)

    def _upgrade(self, accepted: socket.SocketType, head: bytes, granted: Granted | None) -> None:
        """A knock becomes a connection: it was let in, or the raw scan is unsure of it."""
        self.listener.connect(
            accepted, lambda: WebSocketConnection(self._connections, self._gate, head, granted)
        )

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenError: the address cannot be bound.
        """
        self.port = await self.listener.start(self._server.host, self._server.port)

    async def stop(self) -> None:
        """Stop listening, and drop every connection."""
        await self.listener.stop()
        self._gate.abort_all()
        self._wheel.close()


def _connection_context(
    basis: Basis, wheel: TimingWheel, loop: asyncio.AbstractEventLoop
) -> ConnectionContext:
    settings = basis.settings
    return ConnectionContext(
        limits=limits.connection_limits(settings),
        wheel=wheel,
        observer=basis.observers.edge,
        rng=basis.rng,
        loop=loop,
        partings=partings(loop, settings.server.accept_slice_us / 1e6),
        path=frames.PATH,
        subprotocols=[frames.SUBPROTOCOL],
        extensions=limits.extensions(settings.compression),
    )
