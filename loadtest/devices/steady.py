"""Connected devices that go on sending, in a process of their own.

The process is `python -m loadtest.devices.steady`. Devices that share an event loop with a storm
would measure the queues of the generator instead of the gateway's. The process reads its parameters
as one JSON line on stdin, then answers each further line with what it has seen since the last.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import uvloop

from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.pace import at_rate
from loadtest.errors import TargetError


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
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "loadtest.devices.steady",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        await self._ask(json.dumps(self._parameters))
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def seen(self) -> Seen:
        """What the devices have seen since the last call."""
        return Seen(**await self._ask("?"))

    async def _ask(self, line: str) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line.encode() + b"\n")
        answer = await process.stdout.readline()
        if not answer:
            raise TargetError("the connected devices could not connect")
        return json.loads(answer)


async def _run() -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
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
