"""A server under test, as a process: started on a free loopback port, measured, stopped by its id.

Each server has a directory of its own for its files and its log.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from loadtest.errors import TargetError
from loadtest.servers import proc

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0


_PORTS: Final = range(20_000, 32_768)
"""Below those of outgoing connections (`net.ipv4.ip_local_port_range`).

Such a connection could take the port before the server that it is for has bound it."""
_HELD_MAX: Final = 128
_held: Final[deque[int]] = deque()
"""Sockets of the ports that were given out last."""


def free_port() -> int:
    """A port on loopback that is free, and that for a while nobody else finds free.

    A socket that is bound and does not listen holds it: whoever looks for a free port cannot bind
    it then, also while the server that it is for starts again. That server can, because servers set
    SO_REUSEADDR (on Linux). A client that connects before it listens is refused.
    """
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.ExitStack() as unless_free:
            holder = unless_free.enter_context(socket.socket())
            try:
                holder.bind(("127.0.0.1", port))
            except OSError:
                continue
            if sys.platform == "linux":
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                unless_free.pop_all()
                _hold(holder)
            return port


def _hold(holder: socket.socket) -> None:
    """Keep it open until many others have come. Nobody closes it at the end of the process."""
    if len(_held) == _HELD_MAX:
        os.close(_held.popleft())
    _held.append(holder.detach())


class Target:
    """A server process. A context: it is started on entry and stopped on exit."""

    name = "server"
    """Names the server in errors."""
    stop_signal = signal.SIGTERM
    stop_timeout_s = _STOP_TIMEOUT_S
    user: str | None = None
    """The user that runs the process; None for the user of this process."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """
        Args:
            directory: for the server's files and log; it is made at the first start.
            environment: variables that are added to the environment of the process.
        """
        self.directory = directory
        self.port = free_port()
        self._more_environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line that starts the server."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """The whole environment of the process."""
        return {**os.environ, **self._more_environment}

    @property
    def pids(self) -> list[int]:
        """The processes that do the work; the first is the one that was started."""
        assert self._process is not None
        return [self._process.pid]

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            TargetError: the server exited, or did not serve in time.
        """
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start the process, and do not wait until it serves."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=dict(self.environment()), user=self.user
            )

    def wait_until_up(self) -> None:
        """Wait until the server serves.

        Raises:
            TargetError: the server exited, or did not serve in time.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_up():
            if not self.running or time.monotonic() > deadline:
                self.stop()
                tail = (self.directory / "log").read_text(errors="replace").splitlines()[-5:]
                raise TargetError(f"{self.name} did not start: {' | '.join(tail)}")
            time.sleep(0.02)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def stop(self) -> None:
        """Stop the server as an operator would, and kill it if it does not stop in time."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)  # a stopped process handles no other signal
        process.send_signal(self.stop_signal)
        try:
            process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal to every process of the server that still lives."""
        send_signal(self.pids, number)

    def cpu_s(self) -> float:
        """CPU time that the server has used so far, in seconds."""
        return sum(proc.cpu_s(pid) for pid in self.pids)

    def memory_bytes(self) -> int:
        """Resident memory of the process that holds the connections."""
        return proc.memory_bytes(self.pids[0])


def send_signal(pids: Sequence[int], number: int) -> None:
    """Send a signal to those of the processes that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
