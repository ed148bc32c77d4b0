"""A crowd of storm devices, all of which come back at once."""

import asyncio
import random
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Protocol

from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.policies import make_policy
from loadtest.devices.storm import Route, StormDevice, StormLog, Visit
from loadtest.devices.wire import hello


class Mint(Protocol):
    """Where devices have their credentials from."""

    def token(self, device: str) -> str:
        """The credential of a device."""


class _Counted(Visit):
    """A session that is counted when it begins."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd

    def begun(self) -> None:
        self._crowd.count_one()


class _Asking(_Counted):
    """A session which asks for the state of its device, and has none."""

    _told = False

    def greeting(self) -> bytes:
        return hello("storm", sent=0, state="")

    def heard(self, text: bytes) -> None:
        if not self._told and b'"state":{' in text:
            self._told = True
            self._crowd.told += 1


class Crowd:
    """Devices of a storm and their log."""

    def __init__(
        self,
        issuer: Mint,
        count: int,
        ports: Sequence[int],
        policy: str,
        *,
        first_retry_ms: int,
        context: ssl.SSLContext | None = None,
        comes_back: bool = False,
        asks_state: bool = False,
    ) -> None:
        """
        Args:
            issuer: mints their credentials.
            count: devices.
            ports: of the gateways.
            policy: when they knock.
            first_retry_ms: what the gateway told them before the storm.
            context: for TLS: what they trust.
            comes_back: each hangs up as soon as it is in and knocks again.
            asks_state: each asks for the state of its device.
        """
        self.log = StormLog()
        self.ports = ports
        self.inside = 0
        """Admissions so far."""
        self.told = 0
        """Devices that were told their state."""
        self._everybody_in = asyncio.Event()
        self._comes_back = comes_back
        rng, visit = random.Random(count), _Asking if asks_state else _Counted
        self.devices = [
            StormDevice(
                name,
                issuer.token(name),
                Route.shuffled(ports, rng, context),
                make_policy(policy, rng, first_retry_ms=first_retry_ms),
                self.log,
                visit(self),
                comes_back=comes_back,
            )
            for name in (f"{policy}-{number}" for number in range(count))
        ]

    def count_one(self) -> None:
        """One more was admitted."""
        self.inside += 1
        if self.inside >= len(self.devices) and not self._comes_back:
            self._everybody_in.set()

    @property
    def knocks_a_device(self) -> float:
        return sum(device.account.knocks for device in self.devices) / len(self.devices)

    @property
    def most_knocks(self) -> int:
        """Knocks of the device that knocked most."""
        return max(device.account.knocks for device in self.devices)

    def recovery_over(self, ideal_s: float) -> float:
        """Seconds until the last admission, over what it takes at the least."""
        return max(self.log.admissions) / ideal_s

    def connected(self, *, rate_per_s: float) -> AbstractAsyncContextManager[object]:
        """All of them connected, until they are cut at once at the end of it."""
        credentials = [(device.name, device.token) for device in self.devices]
        fleet = Fleet.of_gateway(credentials, Meter(0))
        return fleet.connected(self.ports[0], rate_per_s=rate_per_s)

    async def run(self, timeout_s: float) -> bool:
        """Let all of them lose their connections at once, and wait until all are in.

        Returns:
            Whether all were in before the time was up.
        """
        self.log.began = monotonic()
        for device in self.devices:
            device.begin()
        try:
            async with asyncio.timeout(timeout_s):
                await self._everybody_in.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End all of them."""
        for device in self.devices:
            device.stop()
        await asyncio.sleep(0.2)

    def admitted_between(self, start: float, end: float) -> float:
        """Admissions a second in that part of the storm."""
        return sum(start <= time < end for time in self.log.admissions) / (end - start)
