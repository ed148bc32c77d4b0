"""A loopback-only echo server on the production framing path, for RFC 6455 conformance suites.

    python tests/conformance/echo.py [PORT]

Prints its port once it listens. Limits are those the suite needs: it sends 16 MiB messages in
fragments of 64 bytes.
"""

import asyncio
import math
import random
import signal
import sys
from functools import partial

import uvloop
from websockets.frames import Frame, Opcode

from gateway.admission.credential import Identity
from gateway.edge.connection.context import ConnectionContext, ConnectionLimits
from gateway.edge.connection.ending import endings
from gateway.edge.connection.side_traffic import SideBudget
from gateway.edge.listening.connector import Connector
from gateway.edge.listening.listener import Listener
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.anteroom import Anteroom
from gateway.edge.opening.opening import Opening
from gateway.edge.wheel import TimingWheel
from gateway.session.errors import close_reason
from tidegate.wire.errors import FrameError
from tidegate.wire.frames import CLOSE_INVALID_DATA, check_utf8

MIB = 2**20


class Echo:
    """Says what it hears."""

    def __init__(self):
        self.deadline = math.inf
        self.connection = None

    def opened(self, connection):
        self.connection = connection

    def received_text(self, text):
        try:
            check_utf8(text)
        except FrameError as exc:
            self.connection.fail(CLOSE_INVALID_DATA, close_reason(exc.error, exc.detail), exc.error)
            return
        self.connection.send_text(text)

    def received_binary(self, data):
        # The gateway itself never sends binary, so the connection has no method for it.
        connection = self.connection
        frame = Frame(Opcode.BINARY, data).serialize(mask=False, extensions=[])
        connection._transport.write(frame)

    def on_deadline(self, now):
        pass

    def on_lull(self):
        pass

    def closed(self, cause, code):
        pass


IDENTITY = Identity("anybody", "default", "", urgent=False, jti="", expires_at=math.inf)


class OpenGate:
    """Admits every connection."""

    def arrived(self, connection, *, anonymous):
        pass

    def decide(self, petition, address, visitor):
        return IDENTITY

    def hung_up(self, visitor):
        pass

    def left(self, connection):
        pass


async def serve(port):
    loop = asyncio.get_running_loop()
    context = ConnectionContext(
        gate=OpenGate(),
        make_handler=lambda _identity: Echo(),
        limits=ConnectionLimits(
            frame_bytes_max=32 * MIB,
            fragments_max=MIB,
            write_buffer_bytes_max=64 * MIB,
            # The suite sends a million small fragments, and pings as fast as it can.
            side=SideBudget(frames_per_s=1e9, bytes_per_s=1e12),
        ),
        wheel=TimingWheel(loop),
        observer=EdgeObserver(),
        rng=random.Random(1),
        loop=loop,
        endings=endings(loop, 0.001),
    )
    connector = Connector(
        partial(Opening, context),
        slice_s=0.001,
        tls=lambda: None,
        tls_handshake_timeout_s=5,
        anteroom=Anteroom(places=1_000, observer=context.observer),
        observer=context.observer,
    )
    listener = Listener(
        connector,
        accept_budget=64,
        accept_slice_s=0.001,
        observer=context.observer,
    )
    print(await listener.start("127.0.0.1", port, 128), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await listener.stop()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
