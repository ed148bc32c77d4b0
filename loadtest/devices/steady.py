"""Connected devices that go on sending, in a process of their own.

The process is `python -m loadtest.devices.steady`. Devices that share an event loop with a storm
would measure the queues of the generator instead of the gateway's. The process reads its parameters
as one JSON line on stdin, then answers each further line with what it has seen since the last.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import uvloop

from loadtest.devices.child import DeviceProcess, lines_of_parent
from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.pace import at_rate


@dataclass(frozen=True, slots=True)
class Seen:
    """What the connected devices saw. Times in milliseconds."""

    acked: int
    p50_ms: float
    p99_ms: float
    lost: int


class SteadyDevices:
    """The process, as its parent uses it. A context."""

    def __init__(
        self,
        port: int,
        tokens: Sequence[tuple[str, str]],
        *,
        rate_per_s: float,
        connect_per_s: float,
    ) -> None:
        """
        Args:
            port: of the gateway.
            tokens: device ids and their credentials.
            rate_per_s: messages a second of all devices together.
            connect_per_s: connections a second.
        """
        self._parameters = {
            "port": port,
            "tokens": list(tokens),
            "rate_per_s": rate_per_s,
            "connect_per_s": connect_per_s,
        }
        self._process: DeviceProcess | None = None

    async def __aenter__(self) -> Self:
        self._process = await DeviceProcess.start("steady")
        try:
            await self._process.ask(json.dumps(self._parameters))
        except BaseException:  # failed or cancelled, `__aexit__` is not called
            await self._process.end()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._process is not None
        await self._process.end()

    async def seen(self) -> Seen:
        """What the devices have seen since the last call."""
        assert self._process is not None
        return Seen(**await self._process.ask("?"))


async def _run() -> None:
    stdin = await lines_of_parent()
    wanted = json.loads(await stdin.readline())
    meter = Meter(0)
    fleet = Fleet.of_gateway(wanted["tokens"], meter)
    async with fleet.connected(wanted["port"], rate_per_s=wanted["connect_per_s"]) as senders:
        sending = asyncio.create_task(
            at_rate(wanted["rate_per_s"], lambda number: senders[number % len(senders)].fill(1))
        )
        print("{}", flush=True)
        try:
            while await stdin.readline():
                seen = Seen(meter.messages, meter.wait_ms(50), meter.wait_ms(99), fleet.lost)
                meter.reset()
                print(json.dumps(asdict(seen)), flush=True)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(_run())
