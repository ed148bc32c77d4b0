"""What a node must know of its earlier lives: their names, and the highest fence of them.

The file `lives.json` of the data directory has both. A node without a fleet numbers its sessions by
its own clock, so it must not trust that clock across a restart: it may have been set back. The file
holds a fence that is higher than any that was given; it is written ahead of the clock.
"""

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from gateway import durable_file
from gateway.cluster.fences import Fences
from gateway.process import Work

_log = structlog.get_logger(__name__)

_AHEAD: Final = 120_000_000
"""Fences are microseconds: how far ahead of the last one the file is."""
_WRITE_S: Final = 30.0
_NAMES_MAX: Final = 1_000


class _Lives(Struct):
    nodes: list[str] = []  # msgspec copies it
    fence: int = 0


class EarlierLives:
    """The file of a node's lives."""

    def __init__(self, directory: Path | None, node: str, fences: Fences, *, alone: bool) -> None:
        """
        Args:
            directory: the data directory; None for a worker, which shares it with others: its
                fleet finds what it left behind.
            node: name of this process.
            fences: number the sessions of this node.
            alone: whether this node has no fleet, and so no clock but its own.
        """
        self._file = directory / "lives.json" if directory is not None else None
        self._node = node
        self._fences = fences
        self._alone = alone
        self._lives = _Lives()

    @property
    def names(self) -> frozenset[str]:
        """The nodes that this one was, and whose devices may still count as online."""
        return frozenset(self._lives.nodes) - {self._node}

    def begin(self) -> None:
        """Read the file, and add this life to it. Call it before the first session."""
        if self._file is None:
            return
        try:
            self._lives = msgspec.json.decode(self._file.read_bytes(), type=_Lives)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as exc:
            _log.warning("lives_not_read", file=str(self._file), error=str(exc))
        if self._alone:
            self._fences.at_least(self._lives.fence)
        self._lives.nodes = [*self._lives.nodes, self._node][-_NAMES_MAX:]
        self._write()

    def ended(self, names: Collection[str]) -> None:
        """The devices of these lives are offline by now; their names need not be known any more."""
        self._lives.nodes = [name for name in self._lives.nodes if name not in names]
        self._write()

    def work(self) -> Iterable[Work]:
        """Keep the file ahead of the clock."""
        yield "lives", self._keep_ahead()

    async def _keep_ahead(self) -> None:
        while self._alone:
            await asyncio.sleep(_WRITE_S)
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        if self._file is None:
            return
        if self._alone:
            self._lives.fence = self._fences.ahead(_AHEAD)
        try:
            durable_file.replace(self._file, msgspec.json.encode(self._lives).decode())
        except OSError as exc:  # a full disk: fences are right as long as the clock is
            _log.warning("lives_not_written", file=str(self._file), error=str(exc))
