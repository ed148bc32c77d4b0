"""Connections that are held by processes of their own, and end at once when these are told to.

A process is `python -m loadtest.devices.held`. Real devices end somewhere else. Here their end
costs the machine of the gateway as much as the gateway's own: an asyncio program needs half a
second of a core to abort 10,000 transports. These processes close the bare sockets and do nothing
else, and they step back behind all other processes (`nice`). The kernel must not do it for a
process that is killed: it would keep a core until the last socket is closed.

The process reads its parameters as one JSON line on stdin, and says on stdout when all of its
devices are connected. At the next line it closes their sockets, and ends.
"""

import json
import os
from collections.abc import Sequence
from time import perf_counter
from typing import Final, Self

import uvloop

from loadtest.devices.child import DeviceProcess, lines_of_parent
from loadtest.devices.fleet import Fleet, Meter

_PROCESSES: Final = 2
_NICE: Final = 19


class HeldConnections:
    """The processes, as their parent uses them. A context."""

    def __init__(
        self, port: int, tokens: Sequence[tuple[str, str]], *, connect_per_s: float
    ) -> None:
        """
        Args:
            port: of the gateway.
            tokens: device ids and their credentials.
            connect_per_s: connections a second of all together.
        """
        self._parameters = [
            {
                "port": port,
                "tokens": list(tokens[number::_PROCESSES]),
                "connect_per_s": connect_per_s / _PROCESSES,
            }
            for number in range(_PROCESSES)
        ]
        self._processes: list[DeviceProcess] = []

    async def __aenter__(self) -> Self:
        try:
            for parameters in self._parameters:
                self._processes.append(process := await DeviceProcess.start("held"))
                process.tell(json.dumps(parameters))
            for process in self._processes:
                await process.answer()
        except BaseException:  # failed or cancelled, `__aexit__` is not called
            await self._end()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._end()

    async def cut(self) -> float:
        """End all connections at once.

        Returns:
            Seconds until the last one was closed.
        """
        began = perf_counter()
        for process in self._processes:
            process.tell()
        for process in self._processes:
            await process.ended()
        return perf_counter() - began

    async def _end(self) -> None:
        for process in self._processes:
            await process.end()


async def _run() -> None:
    stdin = await lines_of_parent()
    wanted = json.loads(await stdin.readline())
    fleet = Fleet.of_gateway(wanted["tokens"], Meter(0))
    async with fleet.connected(wanted["port"], rate_per_s=wanted["connect_per_s"]) as devices:
        os.nice(_NICE)
        print("{}", flush=True)
        await stdin.readline()  # it ends too if the parent is gone
        # Without those that the gateway has closed: their device knocked before, and came in.
        sockets = [
            device.transport.get_extra_info("socket").fileno()
            for device in devices
            if device.transport is not None and not device.transport.is_closing()
        ]
        for number in sockets:
            os.close(number)
        os._exit(0)  # the loop does not know that its sockets are closed


if __name__ == "__main__":
    uvloop.run(_run())
