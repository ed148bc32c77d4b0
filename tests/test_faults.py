"""kill -9 in mid-traffic: every acknowledged message is stored exactly once, in order per device.

Writers record what was acknowledged to them; the stream is read back without the gateway's help.
"""

import asyncio
import os
import random
import signal

from gateway import development
from support.processes import GatewayProcess
from support.stored import by_device, read_embedded
from support.waiting import eventually
from tidegate import BackoffSettings, Device, Environment

QUICK = BackoffSettings(first_retry_ms=30, base_ms=20, cap_ms=200, stable_ms=1_000)
DEVICES = 8
MESSAGES = 600


class Writer:
    """A device that produces until told, and records its acknowledgements."""

    def __init__(self, gateway, directory, name):
        self.name = name
        self.acked = 0
        self.sent = 0
        token = development.mint(gateway.data_dir, name, lifetime_s=600, claims={})
        self.device = Device(
            gateway.url,
            token,
            outbox=directory / f"{name}.outbox",
            on_ack=self._on_ack,
            backoff=QUICK,
            environment=Environment(rng=random.Random(name)),
        )

    def _on_ack(self, seq):
        assert seq >= self.acked
        self.acked = seq

    async def run(self):
        async with self.device:
            for _ in range(MESSAGES // 10):
                self.sent = max(
                    await asyncio.gather(*(self.device.send("t", {"n": n}) for n in range(10)))
                )
            await asyncio.wait_for(self.device.flush(), 60)


async def _storm(tmp_path, break_it):
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        writers = [Writer(gateway, tmp_path, f"veh-{n}") for n in range(DEVICES)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(writer.run()) for writer in writers]
            for third in (1, 2):
                await eventually(
                    lambda third=third: (
                        sum(writer.acked for writer in writers) >= DEVICES * MESSAGES * third // 3
                    )
                )
                assert not all(task.done() for task in running), "the fault must hit live traffic"
                await break_it(gateway)
        stored = by_device(await read_embedded(gateway.data_dir))
        assert {device for device, _ in stored} == {writer.name for writer in writers}
        assert len(stored) == DEVICES
        for writer in writers:
            assert writer.acked == writer.sent == MESSAGES
        assert all(seqs == list(range(1, MESSAGES + 1)) for seqs in stored.values())
    finally:
        gateway.stop()


async def test_kill_9_of_nats_server(tmp_path):
    async def kill(gateway):
        os.kill(gateway.nats_pid, signal.SIGKILL)

    await _storm(tmp_path, kill)


async def test_kill_9_of_the_gateway(tmp_path):
    async def kill(gateway):
        gateway.kill()
        await asyncio.to_thread(gateway.start)

    await _storm(tmp_path, kill)


async def test_kill_9_of_the_gateway_with_weaker_durability(tmp_path):
    """Fast ingest: a batch may be stored in part when the gateway dies."""
    gateway_environment = {"STREAM__DURABILITY": "stream"}

    async def kill(gateway):
        gateway.kill()
        gateway.environment |= {f"TIDEGATE_{n}": v for n, v in gateway_environment.items()}
        await asyncio.to_thread(gateway.start)

    await _storm(tmp_path, kill)
