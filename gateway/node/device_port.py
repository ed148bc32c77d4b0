"""The port of the devices: listener, knocks and connections around one gate."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from gateway.beats import SHIFT_S
from gateway.edge.connection.context import ConnectionContext
from gateway.edge.connection.ending import endings
from gateway.edge.gate import DeviceGate
from gateway.edge.listening.connector import Connector
from gateway.edge.listening.listener import Listener
from gateway.edge.opening.anteroom import Anteroom
from gateway.edge.opening.knock import KnockContext
from gateway.edge.opening.opening import Opening
from gateway.edge.ports import MakeHandler
from gateway.edge.wheel import TimingWheel
from gateway.node import limits
from gateway.node.basis import Basis
from gateway.node.board import AcceptTurns
from gateway.node.place import WorkerPlace
from gateway.node.reloaded.certificate import Transport
from gateway.process import Work
from tidegate.wire import frames

_ENDS_S: Final = 5.0
"""A stop waits so long for the ends of its connections, 10,000 of which take half a second."""


class DevicePort:
    """Where devices connect."""

    def __init__(
        self,
        basis: Basis,
        *,
        gate: DeviceGate,
        make_handler: MakeHandler,
        anteroom: Anteroom,
        transport: Transport,
        between: Callable[[], None],
    ) -> None:
        """
        Args:
            basis: as everywhere.
            gate: decides on knocks.
            make_handler: makes the handler of an admitted device.
            anteroom: for connections that have not said which device they are.
            transport: plain TCP, or TLS with the certificate in force.
            between: called between the slices of a turn of the loop that many connections fill.
        """
        server, loop = basis.settings.server, asyncio.get_running_loop()
        observer, slice_s = basis.observers.edge, server.accept_slice_us / 1e6
        self._server = server
        self._gate = gate
        self._wheel = TimingWheel(loop, phase_s=SHIFT_S)
        self._connections = connections = _connection_context(
            basis, gate, make_handler, self._wheel, loop, between
        )
        connector = Connector(
            partial(Opening, connections),
            slice_s=slice_s,
            tls=transport.context,
            tls_handshake_timeout_s=basis.settings.tls.handshake_timeout_ms / 1000,
            anteroom=anteroom,
            observer=observer,
            between=between,
        )
        knocks = KnockContext(
            gate=gate,
            wheel=self._wheel,
            observer=observer,
            loop=loop,
            head_bytes_max=connections.limits.head_bytes_max,
            head_timeout_s=connections.limits.head_timeout_s,
            connect=connector.connect,
        )
        self._inherited = None if basis.place is None else basis.place.listening
        self._turns = None if basis.place is None else _turns(basis.place, gate)
        self.listener = Listener(
            connector,
            accept_budget=server.accept_budget,
            accept_slice_s=slice_s,
            observer=observer,
            knock=knocks.knock,
            leave_s=None if self._turns is None else self._turns.leave_s,
            between=between,
        )
        self.port = server.port
        """Where devices connect, once it has started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenError: the address cannot be bound.
        """
        if self._inherited is not None:
            self.port = self.listener.start_on(list(self._inherited))
        else:
            server = self._server
            self.port = await self.listener.start(server.host, server.port, server.backlog)

    def work(self) -> Iterable[Work]:
        """Tell the other workers how many connections this one has."""
        if self._turns is not None:
            yield "board", self._turns.keep_written()

    async def stop(self) -> None:
        """Stop listening, and drop every connection."""
        await self.listener.stop()
        self._gate.abort_all()
        self._connections.endings.hurry()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_S):
                await self._gate.empty.wait()  # what stops next waits for the news of their ends
        self._wheel.close()


def _turns(place: WorkerPlace, gate: DeviceGate) -> AcceptTurns:
    return AcceptTurns(
        place.board, place.number - 1, is_open=lambda: gate.open, connections=gate.__len__
    )


def _connection_context(
    basis: Basis,
    gate: DeviceGate,
    make_handler: MakeHandler,
    wheel: TimingWheel,
    loop: asyncio.AbstractEventLoop,
    between: Callable[[], None],
) -> ConnectionContext:
    settings = basis.settings
    return ConnectionContext(
        gate=gate,
        make_handler=make_handler,
        limits=limits.connection_limits(settings),
        wheel=wheel,
        observer=basis.observers.edge,
        rng=basis.rng,
        loop=loop,
        endings=endings(loop, settings.server.accept_slice_us / 1e6, between),
        path=frames.PATH,
        subprotocols=[frames.SUBPROTOCOL],
        extensions=limits.extensions(settings.compression),
    )
