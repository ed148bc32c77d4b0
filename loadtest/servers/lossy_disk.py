"""The tree of a disk that can lose power, without FUSE.

The tree is kept twice: as programs see it, and as a disk would have it if the power went now. Bytes
reach the disk with an fsync of their file and not otherwise. Names and truncations reach it with
the next fsync of anything, as a journal commits them (ext4, data=ordered, but without its special
case for a file that is renamed before it is synced).
"""

import errno
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(slots=True)
class Node:
    """A file or a directory: what programs see, and what the disk has."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, int]] = field(default_factory=list)
    cut_to: int | None = None
    """The shortest length since names were last committed."""
    changed_ns: int = field(default_factory=time.time_ns)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Disk:
    """The tree in its two states. Paths are absolute.

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

    def symlink(self, path: str, target: str) -> None:
        """A name that leads to `target`: on the disk as soon as its name is."""
        node = self.make(path, stat.S_IFLNK | 0o777)
        node.data[:] = node.disk[:] = target.encode()

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
        """Bring this file's bytes and every name to the disk, as fsync promises."""
        self._commit_names()
        for start, end in node.dirty:
            end = min(end, len(node.data))  # noqa: PLW2901  # it may have been cut since
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
        """Begin with what another disk wrote to `directory`."""
        for source in sorted(directory.rglob("*")):
            path = "/" + source.relative_to(directory).as_posix()
            if source.is_symlink():
                self.symlink(path, str(source.readlink()))
                continue
            content = b"" if source.is_dir() else source.read_bytes()
            mode = source.stat().st_mode
            self._nodes[path] = Node(mode, bytearray(content), bytearray(content))
        self._on_disk = dict(self._nodes)

    def rescue(self, directory: Path) -> None:
        """Write what has reached the disk below `directory`."""
        for path, node in sorted(self._on_disk.items()):
            target = directory / path.lstrip("/")
            if node.is_directory:
                target.mkdir(parents=True, exist_ok=True)
            elif stat.S_ISLNK(node.mode):
                target.symlink_to(node.disk.decode())
                continue
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(node.disk)
            target.chmod(stat.S_IMODE(node.mode))
