"""Devices that carry out commands, in a process of their own, which a fault run kills.

The process is `python -m loadtest.devices.commanded`. It reads its parameters as one JSON line on
stdin. Each device connects, is cut now and then, leaves, and comes back, until the process ends.
The process writes a line for each command at the moment at which the application has it, so what
the application was given is known whenever the process is killed.

Some devices are the reference client, which keeps receipts. The others are lean ones that know
nothing of the queue: they answer a command, and that is all.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from tidegate import BackoffSettings, Command, CommandFailed, Device
from tidegate.clock import Clock
from tidegate.connection import Connection
from tidegate.connector import Connector
from tidegate.dialer import Dialer
from tidegate.environment import Environment
from tidegate.wire import frames

_QUICK: Final = BackoffSettings(first_retry_ms=100, base_ms=100, cap_ms=1_000)
_STAY: Final = (0.2, 1.8)
_AWAY_S: Final = (0.0, 1.5)
_WORK_S: Final = 0.2
_CUT_SHARE: Final = 0.6
_FAILED_SHARE: Final = 0.1
_SLOW_SHARE: Final = 0.1


class CommandedDevices:
    """The process, as a fault run uses it."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        tokens: Mapping[str, str],
        receipts: bool,
        stay_s: float,
        seed: int,
    ) -> None:
        """
        Args:
            directory: for outboxes and the log; it outlives the process.
            port: of the gateway.
            tokens: credentials by device.
            receipts: whether the devices are the reference client.
            stay_s: how long a device stays, on average.
            seed: of cuts and answers.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._starts = seed
        self._parameters = {
            "port": port,
            "tokens": dict(tokens),
            "receipts": receipts,
            "stay_s": stay_s,
            "directory": str(directory),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process anew."""
        self._starts += 1
        parameters = {**self._parameters, "seed": self._starts}
        with (self._directory / "stderr").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "loadtest.devices.commanded"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(parameters).encode() + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None

    def given(self) -> list[tuple[str, str]]:
        """Device and id of each command that an application was given, in order."""
        log = self._directory / "given"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]


class _Log:
    """What the applications were given. A line is one write, so a kill leaves no half of it."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(directory / "given", flags, 0o600)

    def note(self, device: str, command_id: str) -> None:
        os.write(self._file, f"{device} {command_id}\n".encode())


class _Cutter:
    """Opens the connections of one reference client, and can cut the last one."""

    def __init__(self, url: str) -> None:
        clock = Clock()
        self._url = url
        self._connector = Connector(
            clock, Dialer(clock), tls=None, open_timeout_s=10.0, ping_interval_s=10.0
        )
        self._last: Connection | None = None

    async def connect(self, url: str, token: str, ticket: str | None) -> Connection:
        self._last = await self._connector.connect(url, token, ticket)
        return self._last

    def cut(self) -> None:
        if self._last is not None:
            self._last.abort()


class _Fleet:
    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._rng = random.Random(parameters["seed"])
        self._url = f"ws://127.0.0.1:{parameters['port']}{frames.PATH}"
        self._directory = Path(parameters["directory"])
        self._tokens: dict[str, str] = parameters["tokens"]
        self._stay_s: float = parameters["stay_s"]
        self._log = _Log(self._directory)
        self._live = self._reference if parameters["receipts"] else self._lean

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for device, token in self._tokens.items():
                group.create_task(self._come_and_go(device, token))

    async def _come_and_go(self, device: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*_AWAY_S))
            await self._live(device, token)

    def _some_of_stay_s(self) -> float:
        return self._rng.uniform(*_STAY) * self._stay_s

    async def _work(self, device: str, command_id: str) -> bool:
        """What an application does with a command: whether it succeeded."""
        self._log.note(device, command_id)
        if self._rng.random() < _SLOW_SHARE:
            await asyncio.sleep(self._rng.uniform(0, _WORK_S))
        return self._rng.random() >= _FAILED_SHARE

    async def _reference(self, device: str, token: str) -> None:
        cutter = _Cutter(self._url)
        async with Device(
            self._url,
            token,
            outbox=self._directory / f"{device}.outbox",
            backoff=_QUICK,
            environment=Environment(connect=cutter.connect),
        ) as client:

            @client.on("work")
            async def work(command: Command) -> dict[str, str]:
                if not await self._work(device, command.id):
                    raise CommandFailed("jammed")
                return {"did": command.id}

            for _ in range(2):
                await asyncio.sleep(self._some_of_stay_s() / 2)
                if self._rng.random() < _CUT_SHARE:
                    cutter.cut()

    async def _lean(self, device: str, token: str) -> None:
        with contextlib.suppress(WebSocketException, OSError, TimeoutError):
            async with (
                asyncio.timeout(self._some_of_stay_s()),
                connect(
                    self._url,
                    subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                    additional_headers={"Authorization": f"Bearer {token}"},
                    compression=None,
                    proxy=None,
                    close_timeout=0.1,
                ) as link,
            ):
                await link.send(json.dumps({"hello": {"outbox": "box", "oldest": 1}}))
                async for frame in link:
                    command = json.loads(frame).get("command")
                    if command is None:
                        continue
                    done = await self._work(device, command["id"])
                    if self._rng.random() < _CUT_SHARE / 10:
                        link.transport.abort()
                        return
                    result = {"id": command["id"], "ok": done, "data": {"did": command["id"]}}
                    await link.send(json.dumps({"result": result}))


def main() -> None:
    """The process: parameters on stdin; it runs until it is killed, or its parent ends."""
    uvloop.run(_Fleet(json.loads(sys.stdin.readline())).run())


if __name__ == "__main__":
    main()
