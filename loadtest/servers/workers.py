"""`tidegate serve --workers N` as a process with all of its processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from loadtest.errors import TargetError
from loadtest.servers import proc
from loadtest.servers.gateway import GatewayServer
from loadtest.servers.process import send_signal

_COMPLETE_S: Final = 60.0


class WorkersServer(GatewayServer):
    """A gateway of several workers, with its embedded nats-server and Redis."""

    name = "tidegate with workers"

    @property
    def pids(self) -> list[int]:
        """The supervisor, its workers, nats-server and Redis."""
        supervisor = super().pids[0]
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
        return [supervisor, *map(int, children.split())]

    def wait_until_up(self) -> None:
        """Wait until every worker serves and knows of every other.

        Raises:
            TargetError: they do not, in time.
        """
        super().wait_until_up()
        deadline = time.monotonic() + _COMPLETE_S
        while not self._complete():
            if time.monotonic() > deadline:
                raise TargetError(f"not every worker serves within {_COMPLETE_S:.0f} s")
            time.sleep(0.1)

    def _complete(self) -> bool:
        workers = self.workers()
        return all(
            worker.get("state") == "serving"
            and worker["admission"]["fleet"]["nodes"] == len(workers)
            for worker in workers
        )

    def workers(self) -> list[dict[str, Any]]:
        """The part of each on the page `/status`."""
        parts: list[dict[str, Any]] = self.status()["workers"]
        return parts

    def kill_worker(self, number: int) -> None:
        """Kill one with SIGKILL; the supervisor starts another process."""
        os.kill(self.workers()[number]["pid"], signal.SIGKILL)

    @property
    def worker_pids(self) -> list[int]:
        """The processes of workers that there are now."""
        return [pid for pid in self.pids[1:] if b"gateway.supervisor" in proc.command(pid)]

    @property
    def redis_pids(self) -> list[int]:
        """The embedded Redis; empty while there is none."""
        return [pid for pid in self.pids[1:] if b"redis-server" in proc.command(pid)]

    def restart_workers(self) -> None:
        """Begin a rolling restart of the workers; one that is under way goes on."""
        send_signal(self.pids[:1], signal.SIGUSR1)

    def worker_bytes(self) -> list[int]:
        """Resident memory of each worker."""
        return [proc.memory_bytes(worker["pid"]) for worker in self.workers()]
