"""Processes of a test's own, to be signalled and killed."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.commands import TidegateProcess, environment
from support.servers import free_port, wait_until_ready

_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")


class GatewayProcess:
    """`tidegate serve` on fixed ports and a data directory, so that it can come back as itself.

    `source` is where its code is; without it, the code under test.
    """

    def __init__(self, directory: Path, source: Path | None = None, **environment: str) -> None:
        self.directory = directory
        self.source = source
        self.port, self.ops_port = free_port(), free_port()
        self.environment = {f"TIDEGATE_{name}": value for name, value in environment.items()}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/device"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            "serve",
            f"--port={self.port}",
            f"--ops-port={self.ops_port}",
            f"--data-dir={self.data_dir}",
        ]
        with (self.directory / "gateway.log").open("ab") as log:
            given = {"stdout": log, "stderr": log, "env": environment(**self.environment)}
            if self.source is None:
                self.process = TidegateProcess(*arguments, **given)
            else:  # its directory is first on the module path of `-c`
                code = "from gateway.cli import main; main()"
                command = [sys.executable, "-c", code, *arguments]
                self.process = subprocess.Popen(command, cwd=self.source, **given)
        try:
            wait_until_ready(self.ops_port, self.process)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log[-4_000:]}") from None

    @property
    def log(self) -> str:
        return (self.directory / "gateway.log").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    @property
    def nats_pid(self) -> int:
        return int((self.data_dir / "nats" / "pid").read_text())

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 30)

    def stop(self) -> None:
        """End it; what it logged holds no credential."""
        self._end()
        log = self.directory / "gateway.log"
        found = _TOKEN.search(log.read_text()) if log.exists() else None
        assert found is None, f"the log holds a credential: {found[0][:20]}..."

    def _end(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def strip_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
