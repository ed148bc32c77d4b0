"""A soak: devices that connect, flap, offend and leave at random, and the gateway's memory.

    python -m loadtest.lab.soak [--minutes M] [--devices N] [--tls]

Each device (`offender.py`) does one thing after another, at random. After the warm-up memory must
be flat: the verdict compares the slope of resident memory with a bound.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtest.devices.credentials import Issuer
from loadtest.devices.limits import require_descriptors
from loadtest.devices.offender import Offender, Soak
from loadtest.errors import LoadtestError
from loadtest.servers.certificates import make_certificate
from loadtest.servers.gateway import GatewayServer

SLOPE_BYTES_MAX: Final = 1_048_576
"""In ten minutes, after the warm-up."""
_WARM_UP: Final = 0.25
"""Share of the run that is warm-up: five minutes of twenty."""
_SAMPLE_S: Final = 5.0
_MIB: Final = 1_048_576


def slope_in_ten_minutes(samples: Sequence[tuple[float, float]]) -> float:
    """The slope of a straight line through (seconds, bytes), in bytes in ten minutes."""
    if len(samples) < 3:  # a line through two points says nothing
        return 0.0
    times, values = zip(*samples, strict=True)
    return statistics.linear_regression(times, values).slope * 600


@dataclass(frozen=True, slots=True)
class Memory:
    """The gateway's memory after the warm-up: bytes, and bytes in ten minutes."""

    first: float
    last: float
    slope: float


async def _soak(gateway: GatewayServer, soak: Soak, count: int, seconds: float) -> Memory:
    """Run the devices, and print the memory each minute."""
    console = Console()
    began = time.monotonic()
    devices = [Offender(soak, f"soak-{n}", random.Random(n)) for n in range(count)]
    running = [asyncio.create_task(device.run()) for device in devices]
    samples: list[tuple[float, float]] = []
    last_minute = -1
    while (now := time.monotonic() - began) < seconds:
        samples.append((now, float(gateway.memory_bytes())))
        minute = int(now // 60)
        if minute > last_minute:
            last_minute = minute
            console.print(f"  {minute:>3} min  {samples[-1][1] / _MIB:7.1f} MiB  {_did(soak)}")
        await asyncio.sleep(_SAMPLE_S)
    console.print(f"  in all  {_did(soak)}")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    after = [sample for sample in samples if sample[0] >= seconds * _WARM_UP]
    return Memory(after[0][1], after[-1][1], slope_in_ten_minutes(after))


def _did(soak: Soak) -> str:
    return ", ".join(f"{name} {times:,}" for name, times in sorted(soak.did.items()))


def run(minutes: float, devices: int, *, tls: bool) -> int:
    """The soak, on a gateway that it starts.

    Returns:
        1 if memory was not flat, else 0.

    Raises:
        LoadtestError: it could not be run.
    """
    require_descriptors(devices * 2 + 500)
    with tempfile.TemporaryDirectory(prefix="tidegate-soak-") as directory:
        base = Path(directory)
        issuer = Issuer(base / "jwks.json")
        settings: dict[str, object] = {
            "log__level": "error",
            "admission__rate_per_s": 400,
            "admission__device_knocks_per_s": 10,
            "limits__head_timeout_ms": 2_000,
        }
        context = None
        if tls:
            files = make_certificate(base / "tls")
            context = files.client_context()
            settings |= {"tls__cert_file": files.cert, "tls__key_file": files.key}
        with GatewayServer(base / "gateway", jwks_file=issuer.jwks_file, **settings) as gateway:
            soak = Soak(gateway.port, issuer, context, time.monotonic() + minutes * 60)
            memory = asyncio.run(_soak(gateway, soak, devices, minutes * 60))
    flat = memory.slope < SLOPE_BYTES_MAX
    print(
        f"memory after the warm-up: {memory.first / _MIB:.1f} to {memory.last / _MIB:.1f} MiB, "
        f"slope {memory.slope / _MIB:+.2f} MiB in ten minutes (wanted: under 1): "
        f"{'flat' if flat else 'MISSED'}"
    )
    return 0 if flat else 1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Memory under random connections.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    try:
        sys.exit(run(options.minutes, options.devices, tls=options.tls))
    except LoadtestError as exc:
        sys.exit(f"tidegate: {exc}")


if __name__ == "__main__":
    main()
