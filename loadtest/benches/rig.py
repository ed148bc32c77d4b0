"""What the benchmarks have in common: servers, credentials, settings, and the run itself."""

import itertools
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loadtest.devices.credentials import Issuer
from loadtest.devices.fleet import Fleet, credentials_of
from loadtest.devices.senders import Flow
from loadtest.servers.baselines import PeerServer
from loadtest.servers.gateway import GatewayServer
from loadtest.servers.workers import WorkersServer
from loadtest.verdicts import Report

Settings = Mapping[str, object]

OPEN_DOOR: Final[Settings] = {
    "log__level": "warning",
    "session__first_retry_min_ms": 10,
    "admission__rate_per_s": 100_000,
    "admission__burst": 100_000,
}
"""Every device is admitted at once."""
NO_KNOCK_LIMIT: Final[Settings] = {"admission__device_knock_burst": 10_000}
"""No device is refused because it knocked too often."""
COLD: Final[Settings] = {"admission__resume_cost": 1.0, **NO_KNOCK_LIMIT}
"""Every admission costs one slot, which makes N/R the yardstick of a storm."""
REFUSING: Final[Settings] = {
    "admission__rate_per_s": 1.0,
    "admission__rate_floor_per_s": 1.0,
    "admission__burst": 1,
    "admission__park_ms": 0,
    "admission__patience_ms": 0,
    "admission__horizon_ms": 86_400_000,
    **COLD,
}
"""Nearly every knock is refused with a slot to come back in. One a second is admitted at once,
because its slot has come. It must not wait for R (`patience_ms`): the devices that knock one after
the other would stand still for that second, and one side more often than the other."""


def fixed_rate(rate_per_s: float, burst: float) -> Settings:
    """Admit at that rate, whatever the gateway measures."""
    return {
        "admission__rate_per_s": rate_per_s,
        "admission__rate_floor_per_s": rate_per_s,
        "admission__burst": burst,
        **COLD,
    }


@dataclass(slots=True)
class Bench:
    """One run: where it keeps its files, who mints credentials, how long it measures."""

    directory: Path
    issuer: Issuer
    seconds: float
    report: Report
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @classmethod
    def below(cls, directory: Path, seconds: float = 0.0) -> "Bench":
        """A run that keeps everything below `directory`."""
        return cls(directory, Issuer(directory / "jwks.json"), seconds, Report())

    def fresh_directory(self, name: str) -> Path:
        """A path that no other server of this run has."""
        return self.directory / f"{name}-{next(self._numbers)}"

    def gateway(
        self,
        environment: Mapping[str, str] | None = None,
        tree: Path | None = None,
        /,
        **settings: object,
    ) -> GatewayServer:
        """A gateway that admits every device at once, unless `settings` say otherwise."""
        return GatewayServer(
            self.fresh_directory("gateway"),
            environment,
            tree,
            jwks_file=self.issuer.jwks_file,
            **{**OPEN_DOOR, **settings},
        )

    def workers(
        self, count: int, environment: Mapping[str, str] | None = None, /, **settings: object
    ) -> WorkersServer:
        """Such a gateway of so many workers."""
        return WorkersServer(
            self.fresh_directory("workers"),
            environment,
            jwks_file=self.issuer.jwks_file,
            **{**OPEN_DOOR, "server__workers": count, **settings},
        )

    def peer(self, *, fsync: bool) -> PeerServer:
        """nats-server alone."""
        return PeerServer(self.fresh_directory("peer"), fsync=fsync)

    def credentials(self, count: int, prefix: str = "veh") -> list[tuple[str, str]]:
        """Names and tokens of so many devices."""
        return credentials_of(self.issuer, count, prefix)

    def gateway_devices(self, count: int, flow: Flow, prefix: str = "veh") -> Fleet:
        """A fleet for a gateway."""
        return Fleet.of_gateway(self.credentials(count, prefix), flow)

    def nats_devices(self, count: int, flow: Flow, prefix: str = "veh") -> Fleet:
        """A fleet for nats-server's own WebSocket listener."""
        return Fleet.of_peer([f"{prefix}-{n}" for n in range(count)], flow)


Section = Callable[[Bench], Awaitable[None]]


async def run_sections(
    sections: Mapping[str, Section], names: Sequence[str], seconds: float
) -> int:  # fmt: skip
    """Run the named ones of `sections`.

    Returns:
        1 if an objective was missed, else 0.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        bench = Bench.below(Path(directory), seconds)
        for name in names:
            await sections[name](bench)
    return bench.report.status()
