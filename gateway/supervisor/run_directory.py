"""Where the socket files of the supervisor's children are: beside the data if that path is short.

The address of a Unix socket has room for 107 bytes. A data directory with a longer path has its
sockets in a directory of the system's temporary files, which only this user can enter.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from gateway.errors import DataDirectoryError

_ADDRESS_BYTES_MAX: Final = 107
_LONGEST_NAME: Final = "worker-100.sock"
_PRIVATE: Final = 0o700


class RunDirectory:
    """The directory of the sockets."""

    def __init__(self, data_dir: Path) -> None:
        """
        Args:
            data_dir: of the gateway; its lock must be held before `start`.
        """
        self.path = _path_of(data_dir)

    def worker(self, number: int) -> Path:
        """Where a worker answers its supervisor."""
        return self.path / f"worker-{number}.sock"

    @property
    def redis(self) -> Path:
        """Where the embedded Redis listens."""
        return self.path / "redis.sock"

    def start(self) -> None:
        """Make it.

        Raises:
            DataDirectoryError: it cannot be made, or is another user's.
        """
        try:
            self.path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            found = self.path.lstat()
            if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
                raise DataDirectoryError(f"{self.path} is not a directory of this user")
            self.path.chmod(_PRIVATE)
        except OSError as exc:
            raise DataDirectoryError(f"directory {self.path}: {exc.strerror}") from exc

    def stop(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _path_of(data_dir: Path) -> Path:
    whole = data_dir.resolve()
    beside = whole / "run"
    if len(str(beside / _LONGEST_NAME).encode()) <= _ADDRESS_BYTES_MAX:
        return beside
    short = hashlib.sha256(str(whole).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tidegate-{os.geteuid()}-{short}"
