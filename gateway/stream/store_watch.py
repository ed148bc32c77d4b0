"""What the gateway concludes when a stream stores nothing, and when its disk is full.

A write that fails (disk full, I/O error) stops a stream of nats-server for good: until the server
is started again it answers no publish, whatever room there is by then, but it answers look-ups.
Seen with 2.15: "failed to store a msg" in its log, timeouts for publishers, and for each repeat a
staged batch that stays on the disk. Operators watch a cluster of their own; `StoreWatch` watches
the embedded server.
"""

from typing import Final

_FULL_BYTES: Final = 1 << 20
_ROOM_BYTES: Final = 16 << 20
_SILENT_S: Final = 120.0
_AGAIN_MAX_S: Final = 600.0
_SILENT: Final = ("stream_timeout", "stream_slow")


class StreamTrouble:
    """Remembers the trouble of a stream until something has been stored again. Pure.

    Between two attempts the publisher sees no trouble for a moment, and a look-up that is answered
    looks like progress. Neither is a reason to admit devices.
    """

    def __init__(self) -> None:
        self._trouble = ""
        self._stored = 0

    def observe(self, trouble: str | None, *, stored: int, pending: int) -> str | None:
        """Look again.

        Args:
            trouble: why nothing is being stored, as the publisher sees it now.
            stored: messages stored so far.
            pending: messages that wait to be stored.

        Returns:
            Why nothing is being stored, or None.
        """
        if trouble is not None:
            self._trouble = trouble if trouble.startswith("stream_") else ""
            self._stored = stored
            return trouble
        if not pending or stored != self._stored:
            self._trouble = ""
        return self._trouble or None


class StoreWatch:
    """Says when the disk is full, and when a restart of the server is the cure.

    Pure; times in seconds, sizes in bytes.
    """

    def __init__(self) -> None:
        self._silent_since: float | None = None
        self._patience_s = _SILENT_S
        self.full = False
        """Whether the disk was full, and the server has not been started again since it had room.

        That alone holds the node, whatever the publisher sees: while nothing is sent, nothing
        fails, and devices would be admitted to be held by their first message.
        """
        self.free_bytes: int | None = None
        """Room when last looked at."""

    def observe(self, trouble: str | None, free_bytes: int, now: float) -> bool:
        """Look again.

        Args:
            trouble: why nothing is being stored, as `StreamTrouble` sees it.
            free_bytes: room on the disk.
            now: any clock.

        Returns:
            Whether to start the server again, and then call `restarted`: the disk was full and has
            room, or the stream has been silent for two minutes. If that does not help, the wait
            before the next restart doubles.
        """
        self.free_bytes = free_bytes
        if free_bytes < _FULL_BYTES:
            self.full = True
        if self.full:
            self._silent_since = None
            # Restart even if no publish failed: the server writes for itself too.
            return free_bytes >= _ROOM_BYTES
        if trouble not in _SILENT:
            self._silent_since = None
            if trouble is None:
                self._patience_s = _SILENT_S
            return False
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since < self._patience_s:
            return False
        self._patience_s = min(_AGAIN_MAX_S, self._patience_s * 2)
        return True

    def restarted(self) -> None:
        """The server has been ended, and is started again."""
        self._silent_since = None
        self.full = False
