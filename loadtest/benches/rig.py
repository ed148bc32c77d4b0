"""What the benchmarks have in common: servers, fleets of devices, a meter, and the run itself."""

import asyncio
import contextlib
import itertools
import math
import ssl
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from loadtest.devices.credentials import Issuer
from loadtest.devices.wire import Flow, GatewayDevice, NatsDevice, WireDevice
from loadtest.errors import TargetError
from loadtest.servers.targets import GatewayServer, PeerServer
from loadtest.verdicts import Report

_SAMPLES_MAX: Final = 200_000
_CONNECT_BATCH: Final = 50
_CONNECT_TIMEOUT_S: Final = 120.0


class Meter:
    """Counts acknowledgements and samples how long they took."""

    def __init__(self, window: int) -> None:
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
        self.messages = 0
        self._waits_s.clear()

    def wait_ms(self, percent: int) -> float:
        """A percentile of the waiting time."""
        waits = self._waits_s
        return statistics.quantiles(waits, n=100)[percent - 1] * 1000 if len(waits) > 1 else 0.0


@dataclass(slots=True)
class Bench:
    """One run: where it keeps its files, who mints its credentials, how long it measures."""

    directory: Path
    issuer: Issuer
    seconds: float
    report: Report
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def gateway(self, **settings: object) -> GatewayServer:
        directory = self.directory / f"gateway-{next(self._numbers)}"
        open_door = {"admission__rate_per_s": 100_000, "admission__burst": 100_000}
        quiet = {"log__level": "warning", "session__first_retry_min_ms": 10}
        settings = {**quiet, **open_door, **settings}
        return GatewayServer(directory, jwks_file=self.issuer.jwks_file, **settings)

    def peer(self, *, fsync: bool) -> PeerServer:
        return PeerServer(self.directory / f"peer-{next(self._numbers)}", fsync=fsync)

    def gateway_devices(self, count: int, flow: Flow, prefix: str = "veh") -> "Fleet":
        tokens = [(f"{prefix}-{n}", self.issuer.token(f"{prefix}-{n}")) for n in range(count)]
        return Fleet([partial(GatewayDevice, name, flow, token=token) for name, token in tokens])

    def nats_devices(self, count: int, flow: Flow, prefix: str = "veh") -> "Fleet":
        return Fleet([partial(NatsDevice, f"{prefix}-{n}", flow) for n in range(count)])


Make = Callable[[Callable[[], None]], WireDevice]


class Fleet:
    """Connections to one target."""

    def __init__(self, makers: Sequence[Make]) -> None:
        self._makers = makers
        self._ready = 0
        self._all_ready = asyncio.Event()
        self.devices: list[WireDevice] = []

    @contextlib.asynccontextmanager
    async def connected(
        self,
        port: int,
        *,
        rate_per_s: float = math.inf,
        context: ssl.SSLContext | None = None,
    ) -> AsyncIterator[list[WireDevice]]:
        """All of them, connected and greeted, at most so many a second."""
        loop = asyncio.get_running_loop()
        try:
            for batch in _batches(self._makers, _CONNECT_BATCH):
                made = await asyncio.gather(
                    *(
                        loop.create_connection(
                            lambda m=make: m(self._on_ready),
                            "127.0.0.1",
                            port,
                            ssl=context,
                        )
                        for make in batch
                    )
                )
                self.devices += [device for _transport, device in made]
                await asyncio.sleep(len(batch) / rate_per_s)
            try:
                await asyncio.wait_for(self._all_ready.wait(), _CONNECT_TIMEOUT_S)
            except TimeoutError:
                refusals = [device.refusal[:200] for device in self.devices if device.refusal]
                raise TargetError(
                    f"{self._ready} of {len(self._makers)} devices connected; {refusals[:1]}"
                ) from None
            yield self.devices
        finally:
            for device in self.devices:
                if device.transport is not None:
                    device.transport.abort()
            await asyncio.sleep(0)

    @property
    def lost(self) -> int:
        return sum(device.lost for device in self.devices)

    def _on_ready(self) -> None:
        self._ready += 1
        if self._ready == len(self._makers):
            self._all_ready.set()


def _batches(makers: Sequence[Make], size: int) -> list[Sequence[Make]]:
    return [makers[start : start + size] for start in range(0, len(makers), size)]


Section = Callable[[Bench], Awaitable[None]]


async def run_sections(
    sections: Mapping[str, Section], names: Sequence[str], seconds: float
) -> int:  # fmt: skip
    """Run the named ones of `sections`.

    Returns:
        1 if a promise was missed, else 0.
    """
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        bench = Bench(Path(directory), Issuer(Path(directory) / "jwks.json"), seconds, report)
        for name in names:
            await sections[name](bench)
    if report.failed:
        report.console.print(f"[red]missed:[/] {', '.join(report.failed)}")
    return 1 if report.failed else 0
