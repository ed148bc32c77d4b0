"""Storms against one gateway: over TLS, sustained, after a blip, and by clients without tickets."""

import asyncio
import statistics
from dataclasses import dataclass
from typing import Final

from loadtest.benches.rig import Bench, Settings, fixed_rate
from loadtest.devices.crowd import Crowd
from loadtest.devices.limits import require_descriptors
from loadtest.devices.steady import Seen, SteadyDevices
from loadtest.servers.certificates import make_certificate
from loadtest.simulator import StormPlan, simulate

_CUT_S: Final = 1.0
"""In which 10,000 connections end at once, here and in the gateway: reported apart."""


async def section_tls_storm(bench: Bench) -> None:
    """Devices over TLS, all cut at once: every knock is answered, and all are in within N/R."""
    count, rate = 1_500, 75
    files = make_certificate(bench.directory / "tls-storm")
    tls = {"tls__cert_file": files.cert, "tls__key_file": files.key}
    with bench.gateway(**fixed_rate(rate, 30), **tls) as gateway:
        crowd = Crowd(
            bench.issuer, count, [gateway.port], "ticket", first_retry_ms=8_000,
            context=files.client_context(),
        )  # fmt: skip
        complete = await crowd.run(120.0)
        await crowd.stop()
    recovery = crowd.recovery_over(count / rate)
    bench.report.table(
        f"{count:,} devices over TLS, R = {rate}/s",
        ("recovery / (N/R)", "knocks a device", "without an answer", "left out"),
        [
            (
                f"{recovery:.3f}",
                f"{crowd.knocks_a_device:.2f}",
                str(crowd.log.failures),
                str(count - crowd.inside),
            )
        ],
    )
    bench.report.verdict(
        "recovery over N/R, TLS", recovery, "at most 1.05, all in", ok=complete and recovery <= 1.05
    )
    bench.report.none("knocks over TLS without an answer", crowd.log.failures)


async def section_sustained(bench: Bench) -> None:
    """What is admitted over 60 s of constant demand, against R.

    Devices come in, leave at once and knock again, so that there is always a device that waits.
    """
    seconds, warm_s = 60.0, 2.0
    rows, worst = [], 0.0
    for rate in (50, 500, 2_000):
        with bench.gateway(**fixed_rate(rate, max(10, rate // 10))) as gateway:
            crowd = Crowd(
                bench.issuer, rate * 3 // 4, [gateway.port], "ticket", first_retry_ms=1_000,
                comes_back=True,
            )  # fmt: skip
            cpu_s = gateway.cpu_s()
            await crowd.run(warm_s + seconds)
            cpu = (gateway.cpu_s() - cpu_s) / (warm_s + seconds)
            await crowd.stop()
        ratio = crowd.admitted_between(warm_s, warm_s + seconds) / rate
        worst = max(worst, abs(ratio - 1))
        rows.append((f"{rate:,}/s", f"{ratio:.4f}", f"{cpu:.2f}"))
    bench.report.table(
        "admitted over R, 60 s", ("R", "admitted / R", "cores of gateway and nats-server"), rows
    )
    bench.report.at_most("sustained, off R by", worst, 0.02)


@dataclass(slots=True)
class Blip:
    """What became of a blip, on the wire and in virtual time."""

    policy: str
    crowd: Crowd
    complete: bool
    recovery: float
    calm_ms: float
    cut: Seen
    stormy: Seen

    def row(self) -> tuple[str, ...]:
        return (
            self.policy,
            f"{self.recovery:.3f}" + ("" if self.complete else " (not all)"),
            f"{self.crowd.knocks_a_device:.2f}",
            str(self.crowd.log.dishonoured),
            f"{self.calm_ms:.1f} / {self.cut.p99_ms:.1f} / {self.stormy.p99_ms:.1f}",
            str(self.stormy.lost),
        )

    def beside_simulated(self, count: int, rate: float) -> tuple[str, ...]:
        simulated = simulate(
            StormPlan(
                devices=count, rate_per_s=rate, policy=self.policy, rtt_s=0.002, lateness_s=0.005
            )
        )
        return (
            self.policy,
            f"{self.recovery:.3f} / {simulated.recovery_s / simulated.ideal_s:.3f}",
            f"{self.crowd.knocks_a_device:.2f} / {simulated.knocks_a_device:.2f}",
        )


async def section_storm(bench: Bench) -> None:
    """A blip cuts 10,000 of 11,000 devices, R = 500/s; with tickets and without.

    The other 1,000 go on sending. The calm is all of them connected, before and after.
    """
    count, rate = 10_000, 500
    require_descriptors(count + 2_000)
    blips = [await _blip(bench, policy, count, rate) for policy in ("ticket", "full-jitter")]
    bench.report.table(
        f"{count:,} devices cut at once, R = {rate}/s, 1,000 stay and send 2 msg/s each",
        ("policy", "recovery / (N/R)", "knocks a device", "tickets dishonoured",
         "connected ack p99 ms, calm / first second / storm", "connected lost"),
        [blip.row() for blip in blips],
    )  # fmt: skip
    tickets = blips[0]
    late_s = _p99(tickets.crowd.log.lateness)
    bench.report.console.print(f"  lateness at the slot, p99: {late_s * 1000:.0f} ms")
    bench.report.table(
        "the same storm in virtual time",
        ("policy", "recovery / (N/R), real / simulated", "knocks a device, real / simulated"),
        [blip.beside_simulated(count, rate) for blip in blips],
    )
    bench.report.at_most("recovery over N/R", tickets.recovery, 1.05)
    bench.report.at_most("knocks a device", tickets.crowd.knocks_a_device, 2.1)
    bench.report.none("tickets dishonoured", tickets.crowd.log.dishonoured)
    slower = tickets.stormy.p99_ms / tickets.calm_ms
    bench.report.at_most("connected ack p99, storm / calm", slower, 2)


BLIP: Final[Settings] = {"session__first_retry_min_ms": 2_000}
"""Settings of a gateway for a blip, beside its R."""


async def _blip(bench: Bench, policy: str, count: int, rate: int) -> Blip:
    with bench.gateway(**fixed_rate(rate, 100), **BLIP) as gateway:
        crowd = Crowd(bench.issuer, count, [gateway.port], policy, first_retry_ms=count)
        return await blip(bench, policy, crowd, rate=rate, steady_count=1_000)


async def blip(
    bench: Bench,
    policy: str,
    crowd: Crowd,
    *,
    rate: float,
    steady_count: int,
    calm_s: float | None = None,
) -> Blip:
    """Cut a crowd while others go on sending 2 messages a second each.

    Args:
        bench: the run.
        policy: of the crowd, for the tables.
        crowd: knocks at one gateway, which runs.
        rate: R of that gateway.
        steady_count: devices that stay connected.
        calm_s: how long the calm before and after is measured; the default is together as long as
            the storm, because the machine changes meanwhile.
    """
    count = len(crowd.devices)
    calm_s = count / rate / 2 if calm_s is None else calm_s
    async with SteadyDevices(
        crowd.ports[0],
        bench.credentials(steady_count, "calm"),
        rate_per_s=2 * steady_count,
        connect_per_s=0.8 * rate,
    ) as steady:
        async with crowd.connected(rate_per_s=0.9 * rate):
            before = await _calm(steady, calm_s)
        storming = asyncio.create_task(crowd.run(240.0))
        await asyncio.sleep(_CUT_S)
        cut = await steady.seen()
        complete = await storming
        stormy = await steady.seen()
        after = await _calm(steady, calm_s)
        await crowd.stop()
    calm_ms = (before.p99_ms + after.p99_ms) / 2
    recovery = crowd.recovery_over(count / rate)
    return Blip(policy, crowd, complete, recovery, calm_ms, cut, stormy)


async def _calm(steady: SteadyDevices, seconds: float) -> Seen:
    """What the connected see while nothing happens, a moment after whatever did."""
    await asyncio.sleep(_CUT_S)
    await steady.seen()
    await asyncio.sleep(seconds)
    return await steady.seen()


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


async def section_plain(bench: Bench) -> None:
    """Clients that know no tickets but honour `Retry-After`: none of them starves."""
    count, rate = 3_000, 200
    with bench.gateway(**fixed_rate(rate, 50)) as gateway:
        crowd = Crowd(bench.issuer, count, [gateway.port], "retry-after", first_retry_ms=2_000)
        complete = await crowd.run(120.0)
        await crowd.stop()
    most = crowd.most_knocks
    recovery = crowd.recovery_over(count / rate)
    bench.report.table(
        f"{count:,} devices that honour Retry-After and no ticket, R = {rate}/s",
        ("recovery / (N/R)", "knocks a device", "most knocks of one", "left out"),
        [(f"{recovery:.2f}", f"{crowd.knocks_a_device:.2f}", str(most), str(count - crowd.inside))],
    )
    bench.report.verdict(
        "most knocks of one device", most, "at most 3, all in", ok=complete and most <= 3
    )
