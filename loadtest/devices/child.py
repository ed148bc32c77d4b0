"""Devices in a process of their own, which speaks with its parent by lines.

The process is `python -m` one of the modules beside this one. Its parent writes lines to stdin, of
which the first has the parameters as JSON. The process answers with lines of JSON on stdout.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final, Self

from loadtest.errors import TargetError

_TOP: Final = Path(__file__).parents[2]
_LINE_BYTES_MAX: Final = 2**26
"""The first line has the credentials of all devices."""


class DeviceProcess:
    """Such a process, as its parent uses it."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module = module
        self._process = process

    @classmethod
    async def start(cls, module: str) -> Self:
        """Start `python -m loadtest.devices.MODULE`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", f"loadtest.devices.{module}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_TOP,
        )
        return cls(module, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str = "") -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def answer(self) -> Any:
        """The next answer.

        Raises:
            TargetError: the process has ended, which says why on stderr.
        """
        assert self._process.stdout is not None
        answer = await self._process.stdout.readline()
        if not answer:
            raise TargetError(f"the process of loadtest.devices.{self._module} has ended")
        return json.loads(answer)

    async def ask(self, line: str = "") -> Any:
        """Write a line, and wait for its answer. Raises as `answer`."""
        self.tell(line)
        return await self.answer()

    async def ended(self) -> None:
        """Wait until the process has ended by itself."""
        await self._process.wait()

    async def end(self) -> None:
        """Kill the process, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def lines_of_parent() -> asyncio.StreamReader:
    """Stdin, for a process with an event loop."""
    stdin = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    return stdin
