"""Disasters under writers, and then the checker: `python -m loadtest.lab.disasters [SECTION...]`.

    make disasters
    make disasters ARGS="powerloss leader"

`powerloss` and `disk` mount file systems of their own and need permission to do so.
"""

import random
from collections.abc import Mapping
from typing import Final

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.benches.sections import main_of_sections
from loadtest.devices.writers import WriterPlan
from loadtest.lab import aftermath
from loadtest.lab.scene import Fault, Scene, Trial, check, write_through_faults
from loadtest.lab.storage_disasters import section_disk, section_powerloss
from loadtest.lab.stream_disasters import (
    section_forgetful,
    section_forgotten,
    section_leader,
    section_stopped,
)
from loadtest.servers.network import BadNetwork


class HalfOpen:
    """A fault of the network: devices lose connections that the gateway takes for open."""

    def __init__(self, network: BadNetwork) -> None:
        self._network = network
        self.hurt = 0
        """Connections so far."""

    def faults(self, _scene: Scene) -> Mapping[str, Fault]:
        """This fault alone."""
        return {"half-open": self._happen}

    def faults_and_cuts(self, scene: Scene) -> Mapping[str, Fault]:
        """This fault, and connections that are cut."""
        return {"half-open": self._happen, "cut connections": scene.cut}

    async def _happen(self) -> None:
        self.hurt += self._network.half_open(0.5)


async def section_network(bench: Bench) -> None:
    """40 ms each way, and devices whose connections die without the gateway hearing of it."""
    devices = 100
    with bench.gateway(**NO_KNOCK_LIMIT) as gateway:
        async with BadNetwork.before(gateway.port, delay_s=0.04, rng=random.Random(7)) as network:
            half_open = HalfOpen(network)
            trial = Trial(
                devices=devices, plan=WriterPlan(messages=1_000), faults=10, seed=7,
                kinds=half_open.faults_and_cuts, ports=[network.port],
            )  # fmt: skip
            scene, _seconds = await write_through_faults(bench, gateway, trial)
            left = gateway.status()["connections"]
            checker = await check(gateway.nats_url, scene)
    note = f"{half_open.hurt} half-open, {left} connections at the end"
    aftermath.show(bench, "40 ms each way, half-open peers", ("", scene, checker, note))
    aftermath.judge_damage(bench, checker)
    bench.report.none("connections that no device holds", max(0, left - devices))


SECTIONS: Final = {
    "powerloss": section_powerloss,
    "leader": section_leader,
    "disk": section_disk,
    "stopped": section_stopped,
    "forgotten": section_forgotten,
    "forgetful": section_forgetful,
    "network": section_network,
}


if __name__ == "__main__":
    main_of_sections("disasters", "Disasters, and what the checker finds.", SECTIONS)
