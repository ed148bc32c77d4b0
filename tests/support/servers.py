"""Real servers for tests: each on a free loopback port, stopped by its id."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtest.servers import backends
from loadtest.servers.process import free_port

__all__ = [
    "NatsServer",
    "RedisServer",
    "free_port",
    "mute_server",
    "nats_server",
    "redis_server",
    "stop_process",
    "wait_until_ready",
]


def stop_process(pid: int) -> None:
    """SIGSTOP, and only back once it has stopped: a signal takes a moment to arrive."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 20
    for thread in Path(f"/proc/{pid}/task").iterdir():
        while (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline, f"{pid} does not stop"
            time.sleep(0.001)


def wait_until_ready(ops_port: int, process: subprocess.Popen[bytes]) -> None:
    """Until a gateway admits devices: its port is open before that, and refuses."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{ops_port}/readyz"
            with urllib.request.urlopen(url, timeout=5) as response:
                assert response.status == 200
                return
        assert process.poll() is None, f"exited with {process.returncode}"
        assert time.monotonic() < deadline, "not ready in 30 s"
        time.sleep(0.01)


class NatsServer(backends.NatsServer):
    """A nats-server with JetStream, as an operator would run one; it is stopped with SIGKILL."""

    stop_signal = signal.SIGKILL

    def reconfigure(self, **config: Any) -> None:
        """Other settings, without a restart."""
        self.configure(**config)
        self.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        stop_process(self.pids[0])

    def go_on(self) -> None:
        self.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def nats_server(directory: Path, **config: Any) -> Iterator[NatsServer]:
    server = NatsServer(directory, **config)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory / "js", ignore_errors=True)


class RedisServer(backends.RedisServer):
    """A redis-server that keeps nothing on disk: a restart has lost its memory."""

    stop_signal = signal.SIGKILL


@contextlib.contextmanager
def redis_server(*arguments: str) -> Iterator[RedisServer]:
    """With further arguments of its command line, e.g. `--requirepass`, `x`."""
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-redis-") as directory,
        RedisServer(Path(directory), arguments=arguments) as server,
    ):
        yield server


@contextlib.contextmanager
def mute_server() -> Iterator[int]:
    """The port of a server that accepts connections and never sends a byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port
