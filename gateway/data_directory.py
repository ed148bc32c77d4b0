"""The data directory: used by one gateway at a time, readable by its user only.

It holds the streams of the embedded nats-server, keys, the ticket secret and revocations. A second
gateway on it would end the nats-server of the first, so a gateway holds a lock as long as it runs.
The kernel releases the lock (`flock`) when the process ends, however it ends. No child inherits the
descriptor, so a nats-server that is left behind does not keep the lock.
"""

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

import structlog

from gateway.errors import DataDirectoryError, DataDirectoryInUse

_log = structlog.get_logger(__name__)

_PRIVATE: Final = 0o700
_OTHERS: Final = 0o077


def make_private(directory: Path) -> None:
    """Make `directory` if it is missing, and let only its owner read it.

    Raises:
        DataDirectoryError: it cannot be made.
    """
    try:
        directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        found = directory.stat()
        ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
        if found.st_mode & _OTHERS and ours:
            directory.chmod(_PRIVATE)
    except (FileExistsError, NotADirectoryError) as exc:
        raise DataDirectoryError(f"data directory {directory}: not a directory") from exc
    except OSError as exc:
        raise DataDirectoryError(f"data directory {directory}: {exc.strerror}") from exc
    if found.st_mode & _OTHERS and not ours:
        _log.warning(
            "data_directory_open",
            directory=str(directory),
            mode=oct(stat.S_IMODE(found.st_mode)),
            hint="it holds secrets; let only the gateway's user in (chmod 700)",
        )


class DataDirectoryLock:
    """Keeps other gateways out of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the directory if it is missing, and lock it.

        Raises:
            DataDirectoryInUse: another process holds it; the message names that process.
            DataDirectoryError: the directory cannot be used.
        """
        make_private(self._directory)
        path = self._directory / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise DataDirectoryError(f"{path}: {exc.strerror}") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryInUse(
                f"data directory {self._directory} is in use by process {holder}: stop that"
                " gateway, or set another nats.data_dir (--data-dir)"
            ) from None
        except OSError as exc:
            os.close(descriptor)
            raise DataDirectoryError(f"{path} cannot be locked: {exc.strerror}") from exc
        self._descriptor = descriptor
        self._name_holder(descriptor)

    def release(self) -> None:
        """Release the lock. The file stays: another process may hold a lock on it already."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _name_holder(self, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:  # a full disk: the lock holds without its name
            _log.warning("lock_holder_not_named", error=str(exc))
