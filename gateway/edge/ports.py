"""The protocols of the edge: what a gate, a visitor, a handler and a connection are to each other.

    visitor (`knock.py`, `opening.py`) --decide--> gate (`gate.py`) --admitted, refused--> visitor
    connection (`connection.py`) --opened, received, closed--> handler (`device.py`)

The gate admits an identity. It does not know what is spoken on the connection; the connection makes
its handler (`MakeHandler`). So another device protocol consists of a connection and a handler of
its own, which ask the same gate.
"""

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from gateway.admission.credential import Identity
from gateway.admission.outcome import Refuse
from gateway.edge.errors import Refusal
from gateway.edge.opening.petition import Petition


class Counted(Protocol):
    """A connection that the gate counts, admitted or not."""

    def abort(self, cause: str) -> None:
        """Drop the connection at once."""


class Visitor(Counted, Protocol):
    """A connection that is not admitted yet.

    The gate may answer it from the moment it has asked (`Gate.decide`) until it says that it has
    left or hung up.
    """

    def admitted(self, identity: Identity) -> None:
        """The device may come in."""

    def refused(self, refusal: Refusal) -> None:
        """The device is refused."""


class Gate(Protocol):
    """Decides which devices come in."""

    def arrived(self, connection: Counted, *, anonymous: bool) -> None:
        """Count a connection that was not answered at once.

        Args:
            connection: which.
            anonymous: whether nothing is known of it yet.
        """

    def left(self, connection: Counted) -> None:
        """The connection has gone, or another object speaks for it now."""

    def decide(
        self, petition: Petition, address: str, visitor: Visitor
    ) -> Identity | Refuse | None:
        """Decide on a petition.

        Returns:
            The identity of a device that is admitted at once; None if `visitor` must wait for its
            answer; `Refuse` if the device must come back in its slot. A storm consists of these
            refusals, so they are a value: an exception would cost more.

        Raises:
            Refusal: the device is refused for any other reason.
        """

    def hung_up(self, visitor: Visitor) -> None:
        """A visitor left while it waited for its answer."""


class Granted(Struct, frozen=True, gc=False):
    """The raw scan read this petition, and the gate admitted this identity on it."""

    petition: Petition
    identity: Identity


class Connection(Protocol):
    """What a handler may do with its connection."""

    @property
    def is_open(self) -> bool:
        """Whether text can be sent."""

    @property
    def congested(self) -> bool:
        """Whether the peer does not read: what is sent now only waits here."""

    def send_text(self, text: bytes) -> None:
        """Send a text message; nothing if the connection is no longer open."""

    def close(self, code: int, reason: str, cause: str) -> None:
        """Start the closing handshake; `cause` is the label for metrics."""

    def fail(self, code: int, reason: str, cause: str) -> None:
        """Close because the peer broke a rule: read nothing more (RFC 6455 section 7.1.7)."""

    def pause_reading(self, reason: int) -> None:
        """Read nothing more until `resume_reading`, so that TCP slows the peer down.

        Args:
            reason: one of `PAUSED_BY_*`; reading goes on when no reason is left.
        """

    def resume_reading(self, reason: int) -> None:
        """This reason is gone."""

    def spend(self, frames: int, size: int) -> bool:
        """Count what came beside messages, and slow the peer down if it was too much.

        Args:
            frames: how many, as a plain one costs.
            size: their bytes together.

        Returns:
            Whether the connection goes on.
        """

    def touch(self) -> None:
        """The handler's deadline has changed."""


class Handler(Protocol):
    """Speaks with the device on an open connection."""

    deadline: float
    """Loop time at which `on_deadline` is called; infinity for never. Set it before `touch`."""

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""

    def received_text(self, text: bytes) -> None:
        """A whole text message came. The handler must check that it is UTF-8
        (`frames.check_utf8`, RFC 6455 section 8.1), which decoding a frame does.
        """

    def received_binary(self, data: bytes) -> None:
        """A whole binary message came."""

    def on_deadline(self, now: float) -> None:
        """The deadline passed."""

    def on_lull(self) -> None:
        """The moment for news that can wait: a ping is about to be sent, or the peer, which did
        not read, has read what was sent before.
        """

    def closed(self, cause: str, code: int) -> None:
        """The connection is gone. Called once.

        Args:
            cause: why, of a fixed set.
            code: of the close frame that ended it; 1006 without one.
        """


MakeHandler = Callable[[Identity], Handler]
"""Makes the handler of an admitted device."""

PAUSED_BY_SLOW_READER: Final = 1
PAUSED_BY_FULL_NODE: Final = 2
PAUSED_BY_DRAIN: Final = 4
PAUSED_BY_RESUME: Final = 8
PAUSED_BY_BUDGET: Final = 16
