"""A bad network between devices and their gateway: it delays, and it loses peers silently."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import cast


class _Side(asyncio.Protocol):
    """One socket of a link; what it receives is written to the other side after the delay."""

    def __init__(self, network: "BadNetwork") -> None:
        self._network = network
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []
        """What was received before the other side was connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self._network.later(self.other, data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.other is not None:
            self._network.later(self.other, None)

    def take(self, data: bytes | None) -> None:
        """Data from the other side, or its end."""
        if self.transport is None or self.transport.is_closing():
            return
        if data is None:
            self.transport.close()
        else:
            self.transport.write(data)


class BadNetwork:
    """A TCP proxy on loopback: `async with BadNetwork.before(port, ...) as network`."""

    def __init__(self, upstream_port: int, delay_s: float, rng: random.Random) -> None:
        self._upstream_port = upstream_port
        self._delay_s = delay_s
        self._rng = rng
        self._links: dict[_Side, _Side] = {}
        self._dead: list[_Side] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def before(
        cls, upstream_port: int, *, delay_s: float, rng: random.Random
    ) -> AsyncIterator["BadNetwork"]:
        """
        Args:
            upstream_port: of the gateway.
            delay_s: of everything, each way.
            rng: picks the connections that are hurt.
        """
        network = cls(upstream_port, delay_s, rng)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(network._accept, "127.0.0.1", 0, backlog=4096)
        network.port = server.sockets[0].getsockname()[1]
        try:
            yield network
        finally:
            server.close()
            for task in network._connecting:
                task.cancel()
            for side in [*network._links, *network._links.values(), *network._dead]:
                if side.transport is not None:
                    side.transport.abort()

    def half_open(self, share: float) -> int:
        """Cut this share of the devices off; the gateway does not notice.

        Returns:
            How many were cut off.
        """
        hurt = [side for side in self._links if self._rng.random() < share]
        for device in hurt:
            gateway = self._links.pop(device)
            gateway.other = None
            device.other = None
            self._dead.append(gateway)  # its socket stays open, and nothing answers
            if device.transport is not None:
                device.transport.abort()
        return len(hurt)

    def later(self, side: _Side, data: bytes | None) -> None:
        """Give data to a side after the delay; None for the end."""
        asyncio.get_running_loop().call_later(self._delay_s, side.take, data)

    def _accept(self) -> _Side:
        device = _Side(self)
        task = asyncio.get_running_loop().create_task(self._connect(device))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return device

    async def _connect(self, device: _Side) -> None:
        gateway = _Side(self)
        gateway.other = device
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: gateway, "127.0.0.1", self._upstream_port
            )
        except OSError:
            device.take(None)
            return
        device.other = gateway
        self._links[device] = gateway
        for data in device.early:
            self.later(gateway, data)
