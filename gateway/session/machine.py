"""The device session's state machine. Every transition of a session is in this module.

A session has four regions. Each moves on its own.

Conversation (`State`): what the device may send.

             hello            begin                 hello
  GREETING --------> RESUMING -------> ESTABLISHED --------> CHANGING
                                            ^                    |
                                            +--------------------+
                                                    begin
  every state -- closed --> ENDED

Departure (`Departure`): how the gateway sends the device to another node.

            leave            deadline passed         the last message is settled
  STAYING ---------> LEAVING ----------------> PARTING ------------------------> GONE
     |                                           ^
     +-------------------------------------------+
               leave, without lingering

Credit: GIVEN <-> HELD, by `hold`, and by `release` or `begin` (kept in `CreditWindow`).
Acks: PROMPT <-> RESTING, by `settle` of a greedy device, and by `take_ack`.

Rules:
- The first frame is `hello`; it says where the device's outbox stands. The device waits for
  `welcome`, which says where the stream stands, and sends nothing before it.
- When every message is settled and acknowledged, the device may send a further `hello`, for another
  outbox. It sends no message and no hello until the answer, `resume`. Results and credentials
  belong to no outbox and may go on. An `ack` counts in the outbox of the last answer.
- Which frame may come in which state is checked in `turns.py`. Messages must come in order and
  within the credit (`intake.py`).
- Settling is in order: `settle(seq)` covers everything up to and including `seq`.
- In LEAVING, the device has its `goaway` and works on. In PARTING, nothing more is read; what was
  read is settled and acknowledged, and then the session closes.
- A session that has ENDED lives on until its last message is settled: a session of the same device
  which comes before that must find it, to mark its messages as superseded.

No I/O and no clock: the shell (`edge/device.py`) calls the inputs (the public methods) and carries
out the outputs (`outputs.py`). Messages and acks are frequent, so `receive` and `settle` return
plain values; every other input returns a tuple of outputs.
"""

from typing import Final

from gateway.session.credit import CreditWindow
from gateway.session.errors import CredentialExpired, PolicyViolation, TakenOver
from gateway.session.intake import Intake, SchemaProblem, Storable
from gateway.session.limits import SessionLimits
from gateway.session.outputs import (
    Close,
    Fail,
    Forget,
    Outputs,
    Send,
    StopReading,
    Wake,
    WatchExpiry,
)
from gateway.session.regions import Departure, Settled, State
from gateway.session.turns import check_hello, check_turn, offence_of
from tidegate.wire import frames
from tidegate.wire.errors import FrameError

Received = list[Storable] | frames.Hello | frames.Result | frames.Received | str
"""What one text message of a device is; a string is a fresh credential."""

DRAIN: Final = "drain"
"""The reason of the goaway of a node that stops."""

# Looking a member up in its enum costs more than a global, and these are needed for each message.
ESTABLISHED: Final = State.ESTABLISHED
ENDED: Final = State.ENDED
PARTING: Final = Departure.PARTING
ACKNOWLEDGE: Final = Settled.ACKNOWLEDGE


class Session:
    """One device's session on one connection, from its first frame to its last settled message."""

    __slots__ = (
        "_credit",
        "_goaway",
        "_intake",
        "_resting",
        "_unreported",
        "departure",
        "id",
        "state",
        "superseded",
    )

    def __init__(
        self,
        limits: SessionLimits,
        known_types: set[str] | None = None,
        schema_problem: SchemaProblem | None = None,
    ) -> None:
        """
        Args:
            limits: bounds, shared by all sessions of a node.
            known_types: types already found well-formed, shared by all sessions of a node: a fleet
                has few types and many messages. Bounded by `intake.KNOWN_TYPES_MAX`.
            schema_problem: judges each message. Without it, no message has a schema.
        """
        self._intake = Intake(limits, known_types, schema_problem)
        self._credit = CreditWindow(initial=limits.credit_initial, maximum=limits.credit_max)
        self._goaway: frames.Goaway | None = None
        self._resting = False
        self._unreported = False
        self.id = ""
        """Names this session, from its welcome on."""
        self.state = State.GREETING
        self.departure = Departure.STAYING
        self.superseded = False
        """Whether a newer session of the device sends again what is unacknowledged here."""

    @property
    def acked(self) -> int:
        """The last settled seq."""
        return self._credit.acked

    @property
    def credit(self) -> int:
        """Messages the device may have unacknowledged."""
        return self._credit.credit

    @property
    def drained(self) -> bool:
        """Whether the device was sent to another node because this one stops."""
        return self._goaway is not None and self._goaway.reason == DRAIN

    @property
    def unsettled(self) -> int:
        """Messages received and not yet settled."""
        return self._intake.next_seq - 1 - self._credit.acked

    # Inputs from the device

    def receive(self, text: bytes) -> Received:
        """Take one text message of the device.

        Returns:
            Messages to store in this order, or a hello, result or credential to act on. A hello
            must be answered by `begin`.

        Raises:
            SessionError: the session must end with its close code and reason.
        """
        try:
            received = frames.decode_device_frame(text)
        except FrameError as exc:
            raise offence_of(exc.error, exc.detail) from None
        if self.state is ESTABLISHED:
            if type(received) is frames.Damaged:
                received = self._intake.salvage(text, self._credit.limit) or received
            if type(received) is list:
                return self._intake.admit(received, text, self._credit.limit)
        if isinstance(received, frames.Damaged):
            raise offence_of(received.error, received.detail)
        if isinstance(received, frames.Hello):
            check_hello(received, self.state, idle=not (self.unsettled or self._unreported))
            self.state = State.RESUMING if self.state is State.GREETING else State.CHANGING
            return received
        return check_turn(received, self.state)

    def closed(self) -> Outputs:
        """The connection is gone."""
        self.state = State.ENDED
        return () if self.unsettled else (Forget(),)

    # Inputs from the stream

    def begin(self, settled: int, ceiling: int) -> None:
        """The last hello can be answered: everything up to `settled` is in the stream.

        Args:
            settled: at least `hello.oldest - 1`; more if the stream has more than the device knows.
            ceiling: what a session of this node may have outstanding now.
        """
        assert self.state in (State.RESUMING, State.CHANGING)
        self._intake.next_seq = settled + 1
        self._credit.start(settled, ceiling)
        self.state = State.ESTABLISHED

    def settle(self, seq: int, ceiling: int, *, greedy: bool = False) -> Settled:
        """Every message up to and including `seq` is in the stream or in the dead letters.

        Args:
            seq: the last of them.
            ceiling: what a session of this node may have outstanding now.
            greedy: whether the device sends far more than the others do.
        """
        credit = self._credit
        if seq > credit.acked:
            assert seq < self._intake.next_seq, "a message was settled that was never received"
            credit.acknowledge(seq, ceiling)
            self._unreported = True
        if self.state is ENDED:
            return Settled.NOTHING if self.unsettled else Settled.FORGET
        if not greedy or self.departure is PARTING:
            return ACKNOWLEDGE
        if self._resting:
            return Settled.NOTHING
        self._resting = True
        return Settled.REST

    def take_ack(self) -> bytes | None:
        """The `ack` frame that is due, or None if nothing was settled since the last one."""
        self._resting = False
        if not self._unreported:
            return None
        self._unreported = False
        credit = self._credit
        return frames.encode_ack(credit.acked, credit.limit - credit.acked)

    def hold(self, reason: str) -> Outputs:
        """The stream stores nothing: give no more credit."""
        self._credit.hold()
        if self.state is not State.ESTABLISHED:
            return ()
        return (Send(frames.encode_named("hold", frames.Hold(reason))),)

    def release(self, ceiling: int) -> Outputs:
        """The stream stores again: give credit, from a small window on."""
        if not self._credit.held:
            return ()
        self._credit.release(ceiling)
        if self.state is not State.ESTABLISHED:
            return ()
        self._unreported = False
        return (Send(frames.encode_ack(self._credit.acked, self._credit.credit)),)

    # Inputs from the node

    def leave(self, goaway: frames.Goaway, linger_s: float) -> Outputs:
        """Send the device to another node.

        Args:
            goaway: why, when to connect there, and the ticket for that moment.
            linger_s: how long the session lives on after that moment, so that the device can make
                its new connection before this one breaks; negative to part at once.
        """
        if self.state is State.ENDED or self.departure is not Departure.STAYING:
            return ()
        self._goaway = goaway
        if linger_s < 0:
            return self._part()
        self.departure = Departure.LEAVING
        return (
            Send(frames.encode_named("goaway", goaway)),
            Wake(goaway.retry_ms / 1000 + linger_s),
        )

    def parted(self) -> Outputs:
        """Whether a session that is PARTING can close now. Called after each ack."""
        if self.departure is not Departure.PARTING or self.unsettled:
            return ()
        return self._go()

    def supersede(self) -> Outputs:
        """A newer session of the device has taken over."""
        self.superseded = True
        return (Fail(TakenOver()),)

    def deadline_passed(self, *, expired: bool) -> Outputs:
        """The moment set by the shell or by `Wake` has come.

        Args:
            expired: whether the credential has expired.
        """
        if self.departure is Departure.LEAVING:
            return self._part()
        if self.departure is not Departure.STAYING:
            return ()
        if self.state is State.GREETING:
            return (Fail(PolicyViolation("hello", "no hello in time")),)
        if expired:
            return (Fail(CredentialExpired("expired")),)
        return (WatchExpiry(),)

    # Transitions

    def _part(self) -> Outputs:
        assert self._goaway is not None
        self.departure = Departure.PARTING
        if not self.unsettled:
            return self._go()
        return (
            Send(frames.encode_named("hold", frames.Hold(self._goaway.reason))),
            StopReading(),
        )

    def _go(self) -> Outputs:
        assert self._goaway is not None
        self.departure = Departure.GONE
        ack = self.take_ack()  # due if the session was RESTING
        goaway = Send(frames.encode_named("goaway", self._goaway))
        close = Close(self._goaway.reason)
        return (goaway, close) if ack is None else (Send(ack), goaway, close)
