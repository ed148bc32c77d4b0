"""A gateway of several workers as processes: `tidegate serve --workers N`."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from gateway import development
from support.processes import GatewayProcess
from support.waiting import eventually
from support.wire import RawDevice

QUICK = {
    "DRAIN__RATE_PER_S": "1000",
    "DRAIN__LINGER_MS": "0",
    "SESSION__FIRST_RETRY_MIN_MS": "50",
    "ADMISSION__RATE_PER_S": "1000",
    "ADMISSION__LOOP_LAG_MS__LOW": "20000",
    "ADMISSION__LOOP_LAG_MS__HIGH": "30000",
    "SERVER__CONNECTIONS_MAX": "500",
    "SERVER__ANONYMOUS_MAX": "100",
    "CLUSTER__HEARTBEAT_MS": "100",
    "CLUSTER__NODE_TIMEOUT_MS": "2000",
}
"""A drain, a fleet and an R that keep no test waiting."""


class WorkersProcess(GatewayProcess):
    """The supervisor."""

    def page(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}{path}", timeout=10) as found:
            page: dict[str, Any] = json.load(found)
            return page

    def metric(self, sample: str) -> float:
        url = f"http://127.0.0.1:{self.ops_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as found:
            lines = found.read().decode().splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(sample + " ")]
        assert len(values) == 1, sample
        return float(values[0])

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page("/status")["workers"]
        return found

    def pids(self) -> list[int]:
        """Of the workers."""
        return [worker["pid"] for worker in self.workers()]

    def children(self) -> list[int]:
        """The pids of every process that the supervisor has started."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    async def complete(self) -> None:
        """Wait until all workers serve and know of each other, and the supervisor knows it too.

        It asks a worker once a second.
        """

        def together() -> bool:
            workers = self.workers()
            return all(
                worker["alive"]
                and worker.get("state") == "serving"
                and worker["admission"]["fleet"]["nodes"] == len(workers)
                for worker in workers
            ) and self.metric('tidegate_workers_ready{worker="supervisor"}') == len(workers)

        await eventually(lambda: asyncio.to_thread(together), "a complete fleet")

    def token(self, device: str) -> str:
        return development.mint(self.data_dir, device, lifetime_s=3_600, claims={})

    @contextlib.asynccontextmanager
    async def device(self, name: str) -> AsyncIterator[RawDevice]:
        """A device that has a session."""
        headers = {"Authorization": f"Bearer {self.token(name)}"}
        async with connect(
            self.url, additional_headers=headers, subprotocols=["tidegate.v1"], proxy=None
        ) as connection:
            device = RawDevice(connection)
            await device.greet()
            yield device

    async def node_of(self, name: str) -> str:
        """The node on which a device is."""
        page = await asyncio.to_thread(self.page, f"/devices/default/{name}")
        node: str = page["node"]
        return node


@contextlib.asynccontextmanager
async def running_workers(
    directory: Path, count: int = 2, **settings: str
) -> AsyncIterator[WorkersProcess]:
    """`settings`: variables of the environment without their prefix."""
    gateway = WorkersProcess(directory, SERVER__WORKERS=str(count), **{**QUICK, **settings})
    try:
        await asyncio.to_thread(gateway.start)
        await gateway.complete()
        yield gateway
    finally:
        await asyncio.to_thread(gateway.stop)
