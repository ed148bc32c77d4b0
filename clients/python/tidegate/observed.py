"""What can be seen of a device from outside: its connection, its failures, its outbox."""

from tidegate.answers import Refusal
from tidegate.board import Board, Connected
from tidegate.errors import DeviceError
from tidegate.runner import Gear
from tidegate.status import KnockRecord, Status


class Observed:
    """The base of `Device` that only tells, and changes nothing."""

    def __init__(self) -> None:
        self._board = Board()
        self._status = Status()
        self._gear: Gear | None = None
        """What its sessions share, from its start on."""

    @property
    def connected(self) -> Connected:
        """Whether a session is established; `await device.connected.wait()` waits for one."""
        return Connected(self._board)

    @property
    def failure(self) -> DeviceError | None:
        """Why the device has ended by itself, if it has."""
        return self._board.failure

    @property
    def last_error(self) -> str | None:
        """Why the last attempt failed or the last session ended, in words."""
        return self._status.last_error

    @property
    def last_refusal(self) -> Refusal | None:
        """The last refusal or close of the gateway, or of what stands in front of it."""
        return self._status.last_refusal

    @property
    def knocks(self) -> KnockRecord:
        """The attempts to connect so far."""
        return self._status.knocks

    @property
    def rejected(self) -> int:
        """Messages given up because a gateway can never take them; `on_reject` has heard of
        each.
        """
        return self._status.rejected

    @property
    def pending(self) -> int:
        """Messages in the outbox: not yet acknowledged."""
        return self._gear.store.outbox.messages if self._gear is not None else 0

    @property
    def outbox_bytes(self) -> int:
        """Bytes of data in the outbox."""
        return self._gear.store.outbox.bytes if self._gear is not None else 0

    @property
    def dropped(self) -> int:
        """Messages that the outbox dropped at its bound (`drop_oldest`)."""
        return self._gear.store.outbox.dropped if self._gear is not None else 0
