"""`tidegate serve`, `tidegate sink` and `tidegate route` as processes."""

import contextlib
import json
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.servers.process import Target, free_port


class GatewayServer(Target):
    """`tidegate serve` with its embedded nats-server."""

    name = "tidegate"

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        tree: Path | None = None,
        /,
        *,
        jwks_file: Path,
        **settings: object,
    ) -> None:
        """
        Args:
            directory: for the gateway's data and log.
            environment: variables that are added to the environment of the process.
            tree: the source tree that is started; None for the one that is installed here.
            jwks_file: the keys of the issuer of credentials.
            settings: further settings, `section__key=value`.
        """
        super().__init__(directory, environment)
        self.ops_port = free_port()
        self._settings = {"credentials__jwks_file": jwks_file, **settings}
        if tree is not None:
            # The client had the folder `clients` to itself before it was a distribution.
            self._more_environment["PYTHONPATH"] = f"{tree}:{tree / 'clients' / 'python'}"

    def command(self) -> list[str]:
        arguments = ["serve", "--port", str(self.port), "--ops-port", str(self.ops_port)]
        arguments += ["--data-dir", str(self.directory / "data")]
        return [sys.executable, "-P", "-m", "gateway", *arguments]

    def environment(self) -> Mapping[str, str]:
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("TIDEGATE_")}
        mine = {f"TIDEGATE_{name.upper()}": str(value) for name, value in self._settings.items()}
        return {**inherited, **mine, **self._more_environment}

    @property
    def pids(self) -> list[int]:
        """The gateway, then its nats-server if it has one."""
        return [*super().pids, *([self.nats_pid] if self._nats_pid_file.exists() else [])]

    @property
    def nats_pid(self) -> int:
        """The embedded nats-server."""
        return int(self._nats_pid_file.read_text())

    @property
    def _nats_pid_file(self) -> Path:
        return self.directory / "data" / "nats" / "pid"

    @property
    def nats_url(self) -> str:
        """The address of the embedded nats-server, for an operator."""
        return self.nats_url_of("operators")

    def nats_url_of(self, user: str) -> str:
        """The address of the embedded nats-server for `gateway`, `operators` or `consumers`."""
        return (self.directory / "data" / "nats" / f"{user}.url").read_text().strip()

    def _is_up(self) -> bool:
        # The port of devices is open earlier, and refuses until the gateway is ready.
        with contextlib.suppress(OSError):
            self._page("readyz")
            return True
        return False

    def status(self) -> dict[str, Any]:
        """The page `/status`."""
        page: dict[str, Any] = json.loads(self._page("status"))
        return page

    def metrics_page(self) -> bytes:
        """The page `/metrics`."""
        return self._page("metrics")

    def metric(self, sample: str) -> float:
        """One sample of `/metrics`, named with its labels; 0 if there is none yet."""
        for line in self.metrics_page().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    def order(self, name: str, **what: object) -> None:
        """What an operator orders by POST on the ops port, as `steer`."""
        self._page(name, json.dumps(what).encode())

    def _page(self, name: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.ops_port}/{name}"
        headers = {"Content-Type": "application/json"} if body is not None else {}
        asked = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(asked, timeout=10) as response:  # noqa: S310  # http
            page: bytes = response.read()
            return page


class SinkServer(Target):
    """A `tidegate sink` process."""

    name = "tidegate sink"

    def __init__(
        self,
        directory: Path,
        *,
        nats_url: str,
        database_url: str,
        table: str,
        linger_ms: int = 200,
        program: Sequence[str] = ("-c", "from gateway.cli import main; main()"),
    ) -> None:
        """
        Args:
            directory: for the sink's files and log.
            nats_url: of the server that holds the stream.
            database_url: of the database that holds the table.
            table: with five columns; the sink has its name too.
            linger_ms: how long the sink waits for a batch to fill.
            program: how Python runs the command `tidegate`, or a broken one.
        """
        super().__init__(directory)
        self._nats_url = nats_url
        self._program = program
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "events.toml").write_text(
            f'[[sink]]\nname = "{table}"\ntable = "{table}"\nlinger_ms = {linger_ms}\n'
            '[sink.columns]\ndevice = "device"\nat = "time"\nstream_seq = "stream_seq"\n'
            'soc = "data.soc"\nvoltage = "data.voltage"\n'
        )
        (directory / "database").write_text(database_url)

    def command(self) -> list[str]:
        return [
            sys.executable,
            *self._program,
            "sink",
            f"--events={self.directory / 'events.toml'}",
            f"--database-url-file={self.directory / 'database'}",
            f"--nats-url={self._nats_url}",
            f"--ops-port={self.port}",
        ]

    def lag_s(self) -> float:
        """How far the sink is behind the stream, in seconds; infinite if it does not say."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("tidegate_sink_lag_seconds"):
                    return float(line.rpartition(" ")[2])
        return float("inf")


class RouteServer(Target):
    """A `tidegate route` process."""

    name = "tidegate route"

    def __init__(
        self,
        directory: Path,
        *,
        nats_url: str,
        rules: str,
        program: Sequence[str] = ("-c", "from gateway.cli import main; main()"),
    ) -> None:
        """
        Args:
            directory: for its log.
            nats_url: of the server that holds the stream.
            rules: the text of its events file.
            program: how Python runs the command `tidegate`, or a broken one.
        """
        super().__init__(directory)
        self._nats_url = nats_url
        self._program = program
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "events.toml").write_text(rules)

    def command(self) -> list[str]:
        return [
            sys.executable,
            *self._program,
            "route",
            f"--events={self.directory / 'events.toml'}",
            f"--nats-url={self._nats_url}",
            f"--ops-port={self.port}",
        ]

    def status(self) -> dict[str, Any]:
        """What the page `/status` says of each rule."""
        url = f"http://127.0.0.1:{self.port}/status"
        with urllib.request.urlopen(url, timeout=5) as answer:
            page: dict[str, Any] = json.load(answer)["rules"]
        return page
