"""A disk that can lose power, as a FUSE file system.

The command is `python -m loadtest.servers.lossyfs MOUNTPOINT RESCUE`.

It keeps everything in memory, twice: as programs see it, and as a disk would have it if the power
went now. Bytes reach the disk with an fsync of their file (or O_SYNC) and not otherwise; names and
truncations reach it with the next fsync of anything, as a journal commits them (ext4, data=ordered,
but without its mercy for a file renamed before it is synced). kill -9 proves nothing about
durability, because the page cache survives it; this does.

Making the directory `POWER_OFF` in it writes what the disk has to RESCUE and serves errors from
then on; mounted again with that RESCUE, it begins with it. Needs libfuse 3 and leave to mount
(root, or fusermount3).
"""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Self

from loadtest.errors import LimitError

POWER_OFF: Final = ".power-off"
_START_TIMEOUT_S: Final = 20.0
_MENDED_BY: Final = "apt-get install fuse3, pip install mfusepy, and leave to mount"


@dataclass(slots=True)
class Node:
    """A file or a directory: what programs see, and what the disk has."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, int]] = field(default_factory=list)
    cut_to: int | None = None
    """The shortest it was since names were last committed."""
    changed_ns: int = field(default_factory=time.time_ns)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Disk:
    """The tree and its two states, without FUSE. Paths are absolute.

    Raises:
        OSError: as a file system would.
    """

    def __init__(self) -> None:
        self._nodes = {"/": Node(stat.S_IFDIR | 0o755)}
        self._on_disk = dict(self._nodes)
        self._names_changed = False

    def node(self, path: str) -> Node:
        try:
            return self._nodes[path]
        except KeyError:
            raise OSError(errno.ENOENT, path) from None

    def make(self, path: str, mode: int) -> Node:
        if path in self._nodes:
            raise OSError(errno.EEXIST, path)
        self.node(str(PurePosixPath(path).parent))
        made = self._nodes[path] = Node(mode)
        self._names_changed = True
        return made

    def remove(self, path: str) -> None:
        if self.node(path).is_directory and next(self.children(path), None) is not None:
            raise OSError(errno.ENOTEMPTY, path)
        del self._nodes[path]
        self._names_changed = True

    def link(self, new: str, old: str) -> None:
        if new in self._nodes:
            raise OSError(errno.EEXIST, new)
        self._nodes[new] = self.node(old)
        self._names_changed = True

    def rename(self, old: str, new: str) -> None:
        moved = self.node(old)
        below = f"{old}/"
        for path in [path for path in self._nodes if path.startswith(below)]:
            self._nodes[new + path.removeprefix(old)] = self._nodes.pop(path)
        del self._nodes[old]
        self._nodes[new] = moved
        self._names_changed = True

    def children(self, path: str) -> Iterator[str]:
        """Names in a directory."""
        below = path.rstrip("/") + "/"
        for other in self._nodes:
            if other.startswith(below) and other != "/" and "/" not in other[len(below) :]:
                yield other[len(below) :]

    def write(self, node: Node, data: bytes, offset: int) -> None:
        if offset > len(node.data):
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset : offset + len(data)] = data
        node.dirty.append((offset, offset + len(data)))
        node.changed_ns = time.time_ns()

    def truncate(self, node: Node, length: int) -> None:
        if length < len(node.data):
            del node.data[length:]
            node.cut_to = length if node.cut_to is None else min(node.cut_to, length)
            self._names_changed = True
        else:
            node.data.extend(bytes(length - len(node.data)))
            node.dirty.append((length, length))

    def sync(self, node: Node) -> None:
        """What fsync promises: this file's bytes, and every name."""
        self._commit_names()
        for start, end in node.dirty:
            end = min(end, len(node.data))  # noqa: PLW2901  # cut since
            if end > len(node.disk):
                node.disk.extend(bytes(end - len(node.disk)))
            node.disk[start:end] = node.data[start:end]
        node.dirty.clear()

    def _commit_names(self) -> None:
        if not self._names_changed:
            return
        self._on_disk = dict(self._nodes)
        for node in self._on_disk.values():
            if node.cut_to is not None:
                del node.disk[node.cut_to :]
                node.cut_to = None
        self._names_changed = False

    def load(self, directory: Path) -> None:
        """Begin with what a disk had that was rescued to `directory`."""
        for source in sorted(directory.rglob("*")):
            path = "/" + source.relative_to(directory).as_posix()
            content = b"" if source.is_dir() else source.read_bytes()
            mode = source.stat().st_mode
            self._nodes[path] = Node(mode, bytearray(content), bytearray(content))
        self._on_disk = dict(self._nodes)

    def rescue(self, directory: Path) -> None:
        """Write what the disk has below `directory`."""
        for path, node in sorted(self._on_disk.items()):
            target = directory / path.lstrip("/")
            if node.is_directory:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(node.disk)
            target.chmod(stat.S_IMODE(node.mode))


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
    """The file system as a process: a context in which `mountpoint` can lose power.

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        subprocess.run(["umount", "--lazy", self._mountpoint], check=False)  # noqa: S607
        try:
            self._process.wait(_START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def power_off(self) -> None:
        """Now. What was not synced is gone; what was is below the rescue directory."""
        with contextlib.suppress(OSError):  # its last answer may be an error already
            (self._mountpoint / POWER_OFF).mkdir()
        assert self._rescue.is_dir()


def main() -> None:
    try:
        from mfusepy import FUSE  # noqa: PLC0415  # it looks for libfuse as it is imported
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
