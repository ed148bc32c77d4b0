"""A disk that can lose power, as a FUSE file system.

The command is `python -m loadtest.servers.lossyfs MOUNTPOINT RESCUE`.

kill -9 proves nothing about durability, because the page cache survives it. This file system keeps
only what was synced (`lossy_disk.py`; O_SYNC counts as an fsync after each write).

Making the directory `POWER_OFF` in it writes what has reached the disk to RESCUE; from then on
every call fails. Mounted again with the same RESCUE, the file system begins with that. It needs
libfuse 3 and permission to mount (root, or fusermount3).
"""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

from loadtest.errors import LimitError
from loadtest.servers.lossy_disk import Disk, Node

POWER_OFF: Final = ".power-off"
_START_TIMEOUT_S: Final = 20.0
_MENDED_BY: Final = "apt-get install fuse3, pip install mfusepy, and run as root"


class LossyOperations:
    """What libfuse calls."""

    use_ns = True

    def __init__(self, disk: Disk, rescue: Path) -> None:
        self._disk = disk
        self._rescue = rescue
        self._off = False
        self._open: dict[int, tuple[Node, bool]] = {}
        self._next_handle = 1

    def _find(self, path: str, handle: int | None = None) -> Node:
        if self._off:
            raise OSError(errno.EIO, path)
        if handle is not None and handle in self._open:
            return self._open[handle][0]
        return self._disk.node(path)

    def _opened(self, node: Node, flags: int) -> int:
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._open[handle] = (node, bool(flags & (os.O_SYNC | os.O_DSYNC)))
        return handle

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        node = self._find(path, fh)
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), node.changed_ns)
        links = 2 if node.is_directory else 1
        return {"st_mode": node.mode, "st_nlink": links, "st_size": len(node.data), **times}

    def readdir(self, path: str, fh: int) -> list[str]:
        del fh
        self._find(path)
        return [".", "..", *self._disk.children(path)]

    def mkdir(self, path: str, mode: int) -> int:
        self._find("/")
        if path == f"/{POWER_OFF}":
            self._disk.rescue(self._rescue)
            self._off = True
            return 0
        self._disk.make(path, stat.S_IFDIR | mode)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._find("/")
        return self._opened(self._disk.make(path, stat.S_IFREG | mode), getattr(fi, "flags", 0))

    def open(self, path: str, flags: int) -> int:
        node = self._find(path)
        if flags & os.O_TRUNC:
            self._disk.truncate(node, 0)
        return self._opened(node, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._find(path, fh).data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        node = self._find(path, fh)
        self._disk.write(node, data, offset)
        if fh in self._open and self._open[fh][1]:
            self._disk.sync(node)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._disk.truncate(self._find(path, fh), length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        del datasync
        self._disk.sync(self._find(path, fh))
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        del datasync, fh
        self._disk.sync(self._find(path))
        return 0

    def release(self, path: str, fh: int) -> int:
        del path
        self._open.pop(fh, None)
        return 0

    def unlink(self, path: str) -> int:
        self._find(path)
        self._disk.remove(path)
        return 0

    def rmdir(self, path: str) -> int:
        return self.unlink(path)

    def rename(self, old: str, new: str) -> int:
        self._find(old)
        self._disk.rename(old, new)
        return 0

    def link(self, target: str, source: str) -> int:
        self._find(source)
        self._disk.link(target, source)
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._find("/")
        self._disk.symlink(target, source)
        return 0

    def readlink(self, path: str) -> str:
        return self._find(path).data.decode()

    def chmod(self, path: str, mode: int) -> int:
        node = self._find(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        del uid, gid
        self._find(path)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._find(path).changed_ns = times[1] if times else time.time_ns()
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        del path
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 2**22, "f_bavail": 2**22,
                "f_bfree": 2**22, "f_files": 2**20, "f_ffree": 2**20, "f_namemax": 255}  # fmt: skip


class LossyMount:
    """The file system as a process. A context in which `mountpoint` can lose power.

    Raises:
        LimitError: this machine cannot mount it. The message says what mends it.
    """

    def __init__(self, mountpoint: Path, rescue: Path) -> None:
        self._mountpoint = mountpoint
        self._rescue = rescue
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._mountpoint.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "loadtest.servers.lossyfs",
                self._mountpoint, self._rescue,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._mountpoint.is_mount():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                words = self._process.communicate()[1].decode(errors="replace").strip()
                last = words.splitlines()[-1] if words else "no answer"
                raise LimitError(f"cannot mount a lossy file system ({last}): {_MENDED_BY}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process is not None
        subprocess.run(["umount", "--lazy", self._mountpoint], check=False)  # noqa: S607  # of the PATH
        try:
            self._process.wait(_START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def power_off(self) -> None:
        """Lose power now: what was synced is below the rescue directory, the rest is gone."""
        with contextlib.suppress(OSError):  # the answer may be an error already
            (self._mountpoint / POWER_OFF).mkdir()
        assert self._rescue.is_dir()


def main() -> None:
    try:
        from mfusepy import FUSE  # noqa: PLC0415  # its import fails where libfuse is missing
    except (ImportError, OSError) as exc:
        sys.exit(f"lossyfs: {exc}")
    disk, rescue = Disk(), Path(sys.argv[2])
    if rescue.is_dir():
        disk.load(rescue)
        shutil.rmtree(rescue)
    FUSE(
        LossyOperations(disk, rescue), sys.argv[1],
        foreground=True, nothreads=True, hard_remove=True, fsname="tidegate-lossy",
    )  # fmt: skip


if __name__ == "__main__":
    main()
