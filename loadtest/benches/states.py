"""A storm of devices which all ask for their state, beside the same storm without."""

import asyncio
from typing import Final

import nats

from loadtest.benches.rig import Bench, fixed_rate
from loadtest.benches.storms import BLIP, Blip, blip
from loadtest.devices.crowd import Crowd
from loadtest.devices.limits import require_descriptors
from loadtest.servers.gateway import GatewayServer

_DEVICES_A_SECOND: Final = 1_000
"""Devices of the storm for each second of `--seconds`; R is a twentieth of them."""
_STATE: Final = b'{"desired":{"interval_s":60,"geofence":[52.52,13.4,52.53,13.5],"locked":true}}'


async def section_state(bench: Bench) -> None:
    """A blip cuts devices whose states a fresh node has not seen; `--seconds 10` makes 10,000.

    Both storms meet the same gateway with the same states stored. In one of them nobody asks.
    """
    count = int(_DEVICES_A_SECOND * bench.seconds)
    rate = count // 20
    require_descriptors(count + count // 5)
    without, _asked = await _storm(bench, count, rate, asks=False)
    storm, asked = await _storm(bench, count, rate, asks=True)
    bench.report.table(
        f"{count:,} devices cut at once, R = {rate}/s, {count // 10:,} stay and send 2 msg/s each",
        ("storm", "recovery / (N/R)", "told their state", "asked by direct get / of the leader",
         "connected ack p99 ms, calm / first second / storm"),
        [_row("without state", without, (0, 0)), _row("all ask", storm, asked)],
    )  # fmt: skip
    report = bench.report
    report.at_most("recovery over N/R, all ask", storm.recovery, 1.05)
    slower = storm.stormy.p99_ms / without.stormy.p99_ms
    report.at_most("connected ack p99, all ask / without state", slower, 1.3)
    report.at_most("devices asked for by direct get, a device", asked[0] / count, 1)
    report.none("devices asked for of the leader", asked[1])
    report.none("devices that were not told their state", count - storm.crowd.told)


def _row(name: str, storm: Blip, asked: tuple[int, int]) -> tuple[str, ...]:
    calm_ms, cut_ms, stormy_ms = storm.calm_ms, storm.cut.p99_ms, storm.stormy.p99_ms
    return (
        name,
        f"{storm.recovery:.3f}" + ("" if storm.complete else " (not all)"),
        f"{storm.crowd.told:,}",
        f"{asked[0]:,} / {asked[1]:,}",
        f"{calm_ms:.1f} / {cut_ms:.1f} / {stormy_ms:.1f}",
    )


async def _storm(
    bench: Bench, count: int, rate: int, *, asks: bool
) -> tuple[Blip, tuple[int, int]]:
    """A blip, and the devices that were asked for by direct get and of the leader."""
    gateway = bench.gateway(**fixed_rate(rate, 100), **BLIP)
    policy = "ticket"
    crowd = Crowd(
        bench.issuer, count, [gateway.port], policy, first_retry_ms=count, asks_state=asks
    )
    with gateway:
        await _set_states(gateway, [device.name for device in crowd.devices])
    with gateway:  # started again: this node has seen none of the states
        storm = await blip(bench, policy, crowd, rate=rate, steady_count=count // 10)
        direct, leader = (
            int(gateway.metric(f'tidegate_state_lookups_total{{whom="{whom}"}}'))
            for whom in ("direct", "leader")
        )
    return storm, (direct, leader)


async def _set_states(gateway: GatewayServer, names: list[str]) -> None:
    client = await nats.connect(gateway.nats_url)
    stream = client.jetstream()
    for start in range(0, len(names), 200):
        part = names[start : start + 200]
        await asyncio.gather(*(stream.publish(f"state.default.{name}", _STATE) for name in part))
    await client.close()
