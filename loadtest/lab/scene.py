"""Writers, a gateway, and faults: everything is written, while something breaks again and again."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from loadtest.benches.rig import Bench
from loadtest.checker import Checker, checked
from loadtest.devices.writers import WriterPlan, Writers
from loadtest.errors import TargetError
from loadtest.lab.mishaps import kill_and_start, pause
from loadtest.servers.gateway import GatewayServer
from loadtest.servers.process import send_signal
from loadtest.waiting import until

SETTLE_TIMEOUT_S: Final = 300.0
PAUSE_S: Final = 3.0
_LOOK_EVERY_S: Final = 0.02

Fault = Callable[[], Awaitable[None]]


class Scene:
    """A gateway and its writers, with what can be done to them."""

    def __init__(self, gateway: GatewayServer, writers: Writers, rng: random.Random) -> None:
        """
        Args:
            gateway: running.
            writers: that write to it.
            rng: picks faults, and the connections that are cut.
        """
        self.gateway = gateway
        self.writers = writers
        self.rng = rng
        self.done: Counter[str] = Counter()
        """Faults so far, by name."""
        self.still_s = 0.0
        """The longest time in which nothing was acknowledged."""

    async def break_one(self, faults: Mapping[str, Fault]) -> None:
        """One of these faults, picked at random."""
        name = self.rng.choice(sorted(faults))
        self.done[name] += 1
        await faults[name]()

    async def kill_gateway(self) -> None:
        await kill_and_start(self.gateway)

    async def kill_nats(self) -> None:
        """Kill the embedded nats-server, which the gateway starts again."""
        send_signal([self.gateway.nats_pid], signal.SIGKILL)

    async def stop_nats(self, seconds: float = PAUSE_S) -> None:
        """Stop the embedded nats-server for a while."""
        await pause([self.gateway.nats_pid], seconds)

    async def cut(self) -> None:
        """Cut half of all connections."""
        for writer in self.writers.each:
            if writer.device.inside and self.rng.random() < 0.5:
                writer.device.abort()

    async def watch_acks(self) -> None:
        """Keep `still_s`, until cancelled."""
        seen, since = self.writers.acked, monotonic()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now, acked = monotonic(), self.writers.acked
            if acked > seen:
                seen, since = acked, now
            self.still_s = max(self.still_s, now - since)


Kinds = Callable[[Scene], Mapping[str, Fault]]
"""The faults that may happen in a scene, by name."""


def usual_faults(scene: Scene) -> dict[str, Fault]:
    """What can happen to any gateway with its embedded nats-server."""
    return {
        "kill -9 gateway": scene.kill_gateway,
        "kill -9 nats-server": scene.kill_nats,
        "SIGSTOP nats-server": scene.stop_nats,
        "cut connections": scene.cut,
    }


@dataclass(frozen=True, slots=True)
class Trial:
    """What is written, and through what.

    Attributes:
        devices: that write.
        plan: what each writes.
        faults: how many, each once its share of the messages is acknowledged.
        seed: of everything random.
        kinds: the faults that may happen.
        ports: where devices knock; the gateway's own port if empty.
        settle_timeout_s: for each wait until a share, or all, of the messages is acknowledged.
    """

    devices: int
    plan: WriterPlan
    faults: int
    seed: int
    kinds: Kinds = usual_faults
    ports: Sequence[int] = ()
    settle_timeout_s: float = SETTLE_TIMEOUT_S


async def write_through_faults(
    bench: Bench, gateway: GatewayServer, trial: Trial
) -> tuple[Scene, float]:
    """Write everything, while faults happen.

    Args:
        bench: mints the credentials.
        gateway: running.
        trial: what is written, and through what.

    Returns:
        The scene, and how long it took in seconds.

    Raises:
        TargetError: not everything was acknowledged in time.
    """
    plan, ports = trial.plan, trial.ports or [gateway.port]
    writers = Writers(bench.issuer, trial.devices, ports, plan, trial.seed)
    scene = Scene(gateway, writers, random.Random(trial.seed))
    kinds = trial.kinds(scene)
    began = monotonic()
    writers.begin()
    watching = asyncio.create_task(scene.watch_acks())
    total = trial.devices * plan.messages * len(plan.outboxes)
    try:
        for number in range(1, trial.faults + 1):
            share = total * number // (trial.faults + 1)
            await _share_acked(writers, share, trial.settle_timeout_s)
            await scene.break_one(kinds)
        async with asyncio.timeout(trial.settle_timeout_s):
            await writers.all_done.wait()
    except TimeoutError:
        raise TargetError(f"{writers.acked:,} of {total:,} acknowledged") from None
    finally:
        watching.cancel()
        writers.stop()
    return scene, monotonic() - began


async def _share_acked(writers: Writers, share: int, timeout_s: float) -> None:
    await until(
        lambda: writers.acked >= share or writers.all_done.is_set(),
        f"{share:,} messages acknowledged",
        timeout_s,
    )


async def check(nats_url: str, scene: Scene) -> Checker:
    """Read the whole stream and compare it with what the scene's writers were told."""
    return await checked(nats_url, scene.writers.settled)
