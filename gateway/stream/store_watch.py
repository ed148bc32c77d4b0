"""The disk below the embedded nats-server: says when it is full, and when a restart is the cure.

A write that fails (disk full, I/O error) stops a stream of nats-server for good: it answers nobody
until the server is started again, whatever room there is by then. Seen with 2.15: "critical write
error" in its log, timeouts for everybody else. An operator's own cluster has operators; the
embedded server has this.
"""

from typing import Final

_FULL_BYTES: Final = 1 << 20
_ROOM_BYTES: Final = 16 << 20
_CALM_S: Final = 3.0
_SILENT_S: Final = 120.0
_AGAIN_MAX_S: Final = 600.0
_SILENT: Final = ("stream_timeout", "stream_slow")


class StoreWatch:
    """Decides from what is observed. Pure; times in seconds, sizes in bytes."""

    def __init__(self) -> None:
        self._silent_since: float | None = None
        self._full = False
        self._was_full = False
        self._patience_s = _SILENT_S
        self.free_bytes: int | None = None
        """Room when last looked at."""

    @property
    def full(self) -> bool:
        """Whether the disk was full and has had no real room since.

        That alone holds the node, whatever the publisher sees: while nothing is sent, nothing
        fails, and devices would be admitted to be held by their first message.
        """
        return self._full

    def observe(self, trouble: str | None, free_bytes: int, now: float) -> bool:
        """Look again.

        Args:
            trouble: why nothing is being stored, as the publisher sees it.
            free_bytes: room on the disk.
            now: any clock.

        Returns:
            Whether to start the server again: it has been silent since the disk was full and there
            is room now, or it has been silent for two minutes; ever more seldom if that fails.
        """
        self.free_bytes = free_bytes
        if free_bytes < _FULL_BYTES:
            self._full = self._was_full = True
        elif free_bytes >= _ROOM_BYTES:
            self._full = False
        if trouble not in _SILENT:
            self._silent_since = None
            if trouble is None:
                self._was_full = self._full
                self._patience_s = _SILENT_S
            return False
        if self._silent_since is None:
            self._silent_since = now
        silent_s = now - self._silent_since
        mended = self._was_full and free_bytes >= _ROOM_BYTES and silent_s >= _CALM_S
        if not mended and (self.full or silent_s < self._patience_s):
            return False
        self._silent_since = now
        self._was_full = False
        if not mended:
            self._patience_s = min(_AGAIN_MAX_S, self._patience_s * 2)
        return True
