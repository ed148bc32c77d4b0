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

import uvloop
from websockets.frames import Frame, Opcode

from gateway.edge.anteroom import Anteroom
from gateway.edge.connection import WebSocketConnection
from gateway.edge.context import ConnectionContext, ConnectionLimits, partings
from gateway.edge.listener import Listener
from gateway.edge.observer import EdgeObserver
from gateway.edge.side_traffic import SideBudget
from gateway.edge.wheel import TimingWheel

MIB = 2**20


class Echo:
    """Says what it hears."""

    def __init__(self):
        self.deadline = math.inf
        self.connection = None

    def opened(self, connection):
        self.connection = connection

    def received_text(self, text):
        self.connection.send_text(text)

    def received_binary(self, data):
        # The gateway itself never sends binary, so the connection has no method for it.
        connection = self.connection
        frame = Frame(Opcode.BINARY, data).serialize(mask=False, extensions=[])
        connection._transport.write(frame)

    def on_deadline(self, now):
        pass

    def on_keepalive(self):
        pass

    def closed(self, cause):
        pass


class OpenGate:
    """Lets everybody in."""

    def arrived(self, connection, *, anonymous):
        pass

    def admit(self, request, address, visitor, granted):
        return Echo()

    def left(self, connection):
        pass


async def serve(port):
    loop = asyncio.get_running_loop()
    context = ConnectionContext(
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
        partings=partings(loop, 0.001),
    )
    gate = OpenGate()
    listener = Listener(
        lambda: WebSocketConnection(context, gate),
        accept_budget=64,
        accept_slice_s=0.001,
        backlog=128,
        tls=lambda: None,
        tls_handshake_timeout_s=5,
        anteroom=Anteroom(places=1_000, observer=context.observer),
        observer=context.observer,
    )
    print(await listener.start("127.0.0.1", port), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await listener.stop()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
