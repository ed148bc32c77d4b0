"""A crowd that knocks from a process of its own, which steps back behind all other processes.

The process is `python -m loadtest.devices.knockers`. A knock costs the crowd as much as it costs a
gateway, and real devices knock from elsewhere. The process reads its parameters as one JSON line on
stdin, and says on stdout when it is ready. At the next line all of its devices begin to knock; at
the one after that it says how many knocks there were, and ends.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Final, Self

import uvloop

from loadtest.devices.child import DeviceProcess, lines_of_parent
from loadtest.devices.crowd import Crowd

_NICE: Final = 19
_FOR_S: Final = 600.0


class Knockers:
    """The process, as its parent uses it. A context."""

    def __init__(
        self, port: int, tokens: Sequence[tuple[str, str]], *, first_retry_ms: int
    ) -> None:
        """
        Args:
            port: of the gateway.
            tokens: device ids and their credentials.
            first_retry_ms: the time over which they spread their first knocks.
        """
        self._parameters = {
            "port": port,
            "tokens": dict(tokens),
            "first_retry_ms": first_retry_ms,
        }
        self._process: DeviceProcess | None = None

    async def __aenter__(self) -> Self:
        self._process = await DeviceProcess.start("knockers")
        try:
            await self._process.ask(json.dumps(self._parameters))
        except BaseException:  # failed or cancelled, `__aexit__` is not called
            await self._process.end()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._process is not None
        await self._process.end()

    async def begin(self) -> None:
        """All of them have lost their connections. Returns when each knows when it will knock."""
        assert self._process is not None
        await self._process.ask()

    async def end(self) -> int:
        """How many knocks there were. They knock no more."""
        assert self._process is not None
        return int(await self._process.ask())


class _Issued:
    """Credentials that were minted before."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self._tokens = tokens

    def token(self, device: str) -> str:
        return self._tokens[device]


async def _run() -> None:
    stdin = await lines_of_parent()
    wanted = json.loads(await stdin.readline())
    tokens = wanted["tokens"]
    crowd = Crowd(
        _Issued(tokens),
        len(tokens),
        [wanted["port"]],
        "ticket",
        first_retry_ms=wanted["first_retry_ms"],
    )
    os.nice(_NICE)
    print("{}", flush=True)
    if not await stdin.readline():
        return  # the parent is gone
    running = asyncio.create_task(crowd.run(_FOR_S))
    await asyncio.sleep(0)
    print("{}", flush=True)
    await stdin.readline()
    print(len(crowd.log.knocks), flush=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await crowd.stop()


if __name__ == "__main__":
    uvloop.run(_run())
