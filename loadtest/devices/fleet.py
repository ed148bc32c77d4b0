"""A fleet of connected devices that send, and the meter that counts for all of them."""

import asyncio
import contextlib
import math
import ssl
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

from loadtest.devices.credentials import Issuer
from loadtest.devices.senders import Flow, GatewayDevice, NatsDevice, Sender
from loadtest.errors import TargetError

_SAMPLES_MAX: Final = 200_000
_CONNECT_BATCH: Final = 50
_CONNECT_TIMEOUT_S: Final = 120.0

Make = Callable[[Callable[[], None]], Sender]
"""Makes a device, which calls back once it may send."""


class Meter:
    """Counts acknowledgements and samples how long they took."""

    def __init__(self, window: int) -> None:
        """
        Args:
            window: messages that each device keeps in flight.
        """
        self.window = window
        self.messages = 0
        self.counting = True
        self._waits_s: list[float] = []

    def acked(self, count: int, waited_s: float) -> None:
        if not self.counting:
            return
        self.messages += count
        if waited_s >= 0 and len(self._waits_s) < _SAMPLES_MAX:
            self._waits_s.append(waited_s)

    def reset(self) -> None:
        """Begin again."""
        self.messages = 0
        self._waits_s.clear()

    def wait_ms(self, percent: int) -> float:
        """A percentile of the waiting time."""
        waits = self._waits_s
        return statistics.quantiles(waits, n=100)[percent - 1] * 1000 if len(waits) > 1 else 0.0


class Fleet:
    """Devices that connect to one server and stay."""

    def __init__(self, makers: Sequence[Make]) -> None:
        self._makers = makers
        self._ready = 0
        self._all_ready = asyncio.Event()
        self.devices: list[Sender] = []

    @classmethod
    def of_gateway(cls, credentials: Sequence[tuple[str, str]], flow: Flow) -> "Fleet":
        """Devices of a gateway, from their names and tokens."""
        return cls([partial(GatewayDevice, name, flow, token=token) for name, token in credentials])

    @classmethod
    def of_peer(cls, names: Sequence[str], flow: Flow) -> "Fleet":
        """Devices of nats-server's own WebSocket listener."""
        return cls([partial(NatsDevice, name, flow) for name in names])

    @contextlib.asynccontextmanager
    async def connected(
        self,
        port: int,
        *,
        rate_per_s: float = math.inf,
        context: ssl.SSLContext | None = None,
    ) -> AsyncIterator[list[Sender]]:
        """All of them, connected and greeted, at most so many a second; cut at once on exit.

        Raises:
            TargetError: not all of them came in.
        """
        try:
            for start in range(0, len(self._makers), _CONNECT_BATCH):
                batch = self._makers[start : start + _CONNECT_BATCH]
                self.devices += await asyncio.gather(
                    *(self._connect(make, port, context) for make in batch)
                )
                await asyncio.sleep(len(batch) / rate_per_s)
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await self._all_ready.wait()
            except TimeoutError:
                refusals = [device.refusal[:200] for device in self.devices if device.refusal]
                raise TargetError(
                    f"{self._ready} of {len(self._makers)} devices connected; {refusals[:1]}"
                ) from None
            yield self.devices
        finally:
            for device in self.devices:
                device.abort()
            await asyncio.sleep(0)

    @property
    def lost(self) -> int:
        """How many connections have ended."""
        return sum(device.gone for device in self.devices)

    async def _connect(self, make: Make, port: int, context: ssl.SSLContext | None) -> Sender:
        loop = asyncio.get_running_loop()
        _transport, device = await loop.create_connection(
            partial(make, self._on_ready), "127.0.0.1", port, ssl=context
        )
        return device

    def _on_ready(self) -> None:
        self._ready += 1
        if self._ready == len(self._makers):
            self._all_ready.set()


def credentials_of(issuer: Issuer, count: int, prefix: str) -> list[tuple[str, str]]:
    """Names and tokens of so many devices."""
    return [(name, issuer.token(name)) for name in (f"{prefix}-{n}" for n in range(count))]
