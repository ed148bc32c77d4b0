"""A crowd that knocks from a process of its own, which steps back behind all other processes.

The process is `python -m loadtest.devices.knockers`. A knock costs the crowd as much as it costs a
gateway, and real devices knock from elsewhere. The process reads its parameters as one JSON line on
stdin, and says on stdout when it is ready. At the next line all of its devices begin to knock; at
the one after that it says how many knocks there were, and ends.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import uvloop

from loadtest.devices.crowd import Crowd
from loadtest.errors import TargetError

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
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "loadtest.devices.knockers",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        await self._ask(json.dumps(self._parameters))
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def begin(self) -> None:
        """All of them have lost their connections. Returns when each knows when it will knock."""
        await self._ask("")

    async def end(self) -> int:
        """How many knocks there were. They knock no more."""
        return int(await self._ask(""))

    async def _ask(self, line: str) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line.encode() + b"\n")
        answer = await process.stdout.readline()
        if not answer:
            raise TargetError("the devices that knock have ended")
        return answer.decode()


class _Issued:
    """Credentials that were minted before."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self._tokens = tokens

    def token(self, device: str) -> str:
        return self._tokens[device]


async def _run() -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
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
    print("ready", flush=True)
    if not await stdin.readline():
        return  # the parent is gone
    running = asyncio.create_task(crowd.run(_FOR_S))
    await asyncio.sleep(0)
    print("begun", flush=True)
    await stdin.readline()
    print(len(crowd.log.knocks), flush=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await crowd.stop()


if __name__ == "__main__":
    uvloop.run(_run())
