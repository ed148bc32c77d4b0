"""The device session's state machine: every transition of a session is in this module.

             hello              welcome                  close, offence, expiry, takeover
  GREETING ---------> RESUMING ---------> ESTABLISHED ------------------------------------> ENDED
     |                   |                 |       ^                                          ^
     |                   |   further hello |       | resume                                   |
     |                   |                 v       |                                          |
     |                   |                 CHANGING                                           |
     |                   |                     |                                              |
     +-------------------+---------------------+----------------------------------------------+

Rules:
- The first frame is `hello`; it says where the device's outbox stands. The device waits for
  `welcome`, which says where the stream stands, and sends nothing before it.
- Once every message is settled and the device has been told so, it may send a further `hello`, for
  another outbox. It sends no message and no hello until the answer, `resume`; what belongs to no
  outbox (results, credentials) may go on. `ack`s count in the outbox of the last answer.
- `seq` rises by one from what the stream has. A gap or a repeat is an offence: the transport is
  ordered, so either is a broken client, and storing on would break the order we promise.
- A message beyond the credit is an offence.
- A message that has its place in the order but cannot be stored (its type, time, depth, size, or
  what its schema says) is not an offence: it is settled into the dead letters, or its device would
  resend it for ever.
- Settling is in order: `settle(seq)` covers everything up to and including `seq`.

No I/O, no clock of its own: the shell feeds frames and settlements and carries out what comes back.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET

from gateway.session import salvage
from gateway.session.credit import CreditWindow
from gateway.session.errors import DataError, PolicyViolation
from tidegate.wire import frames
from tidegate.wire.depth import may_exceed, too_deep
from tidegate.wire.grammar import is_message_type, is_timestamp, is_token

RESULT_ID_MAX_CHARS: Final = 64


class State(enum.Enum):
    GREETING = "greeting"
    RESUMING = "resuming"
    ESTABLISHED = "established"
    CHANGING = "changing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session. Sizes in bytes, credit in messages.

    `frame_bytes_max` is told to devices here and held by the connection.
    """

    message_bytes_max: int = 65_536
    frame_bytes_max: int = 262_144
    json_depth_max: int = 32
    messages_per_frame_max: int = 1_000
    credit_initial: int = 32
    credit_max: int = 256


SchemaProblem = Callable[[str, bytes], str | None]
"""What is wrong with the `data` of a message of that type, None if nothing is."""

Storable = frames.Message | frames.Unusable
Received = list[Storable] | frames.Hello | frames.Result | str


class Session:
    """One device's session on one connection, from its opening handshake to its end."""

    __slots__ = (
        "_credit",
        "_known_types",
        "_limits",
        "_next_seq",
        "_schema_problem",
        "_unreported",
        "outbox",
        "state",
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
                has few types and many messages. Bounded by `KNOWN_TYPES_MAX`.
            schema_problem: judges each message; without, every message fits.
        """
        self._limits = limits
        self._known_types = known_types if known_types is not None else set()
        self._credit = CreditWindow(initial=limits.credit_initial, maximum=limits.credit_max)
        self._schema_problem = schema_problem
        self._next_seq = 0
        self._unreported = False
        self.outbox = ""
        self.state = State.GREETING

    @property
    def acked(self) -> int:
        """The last settled seq."""
        return self._credit.acked

    @property
    def credit(self) -> int:
        """Messages the device may have unacknowledged."""
        return self._credit.credit

    @property
    def unsettled(self) -> int:
        """Messages received and not yet settled."""
        if self.state in (State.GREETING, State.RESUMING, State.CHANGING):
            return 0
        return self._next_seq - 1 - self._credit.acked

    def receive(self, text: bytes) -> Received:
        """Take one text message of the device.

        Returns:
            Messages to store in this order, or a hello, result or credential to act on.

        Raises:
            SessionError: the session must end with its close code and reason.
        """
        try:
            received = frames.decode_device_frame(text)
            if type(received) is frames.Damaged:
                received = self._salvage(received, text)
        except frames.FrameError as exc:
            offence = DataError if exc.error in ("utf8", "json") else PolicyViolation
            raise offence(exc.error, exc.detail) from None
        if type(received) is list and self.state is State.ESTABLISHED:
            return self._admit(received, text)
        if self.state is State.GREETING:
            return self._greet(received)
        if self.state is State.RESUMING:
            raise PolicyViolation("hello", "a frame before welcome")
        if type(received) is list:
            raise PolicyViolation("hello", "a message before the further hello is answered")
        if isinstance(received, frames.Hello):
            return self._change(received)
        assert not isinstance(received, frames.Damaged), "salvaged, or an offence"
        if isinstance(received, frames.Result) and len(received.id) > RESULT_ID_MAX_CHARS:
            raise PolicyViolation("result", f"id is longer than {RESULT_ID_MAX_CHARS} characters")
        return received

    def settle(self, seq: int, ceiling: int) -> None:
        """Every message up to and including `seq` is in the stream or in the dead letters.

        Args:
            seq: the last of them.
            ceiling: what a session of this node may have outstanding now.
        """
        if seq > self._credit.acked:
            assert seq < self._next_seq, "settled what was never received"
            self._credit.acknowledge(seq, ceiling)
            self._unreported = True

    def take_ack(self) -> bytes | None:
        """The `ack` frame that is due, if any was settled since the last."""
        if not self._unreported:
            return None
        self._unreported = False
        return frames.encode_ack(self._credit.acked, self._credit.credit)

    def begin(self, settled: int, ceiling: int) -> None:
        """The last hello is answered: everything up to `settled` is in the stream.

        Args:
            settled: at least `hello.oldest - 1`; more if the stream has more than the device knows.
            ceiling: what a session of this node may have outstanding now.
        """
        assert self.state in (State.RESUMING, State.CHANGING)
        self._next_seq = settled + 1
        self._credit.start(settled, ceiling)
        self.state = State.ESTABLISHED

    def hold(self) -> None:
        """Give no more credit: the stream stores nothing."""
        self._credit.hold()

    def release(self, ceiling: int) -> bytes:
        """Give credit again, from a small window on; the `ack` frame that says so."""
        self._credit.release(ceiling)
        self._unreported = False
        return frames.encode_ack(self._credit.acked, self._credit.credit)

    def end(self) -> None:
        self.state = State.ENDED

    def _greet(self, received: frames.Decoded) -> frames.Hello:
        if not isinstance(received, frames.Hello):
            raise PolicyViolation("hello", "the first frame must be hello")
        return self._take_up(received, State.RESUMING)

    def _change(self, hello: frames.Hello) -> frames.Hello:
        if self.state is State.CHANGING:
            raise PolicyViolation("hello", "a hello before the one before it is answered")
        if self.unsettled or self._unreported:
            raise PolicyViolation("hello", "a further hello while messages are not acknowledged")
        return self._take_up(hello, State.CHANGING)

    def _take_up(self, hello: frames.Hello, state: State) -> frames.Hello:
        if not is_token(hello.outbox):
            raise PolicyViolation("hello", "outbox must match [A-Za-z0-9_-]{1,64}")
        self.outbox = hello.outbox
        self.state = state
        return hello

    def _salvage(self, damaged: frames.Damaged, text: bytes) -> list[Storable]:
        """The messages of a frame that does not decode as a whole.

        Raises:
            FrameError: it is not made of messages.
            SessionError: they break a rule, before any work is done on their bodies.
        """
        if self.state is not State.ESTABLISHED:
            raise frames.FrameError(damaged.error, damaged.detail)
        readable = salvage.readable(text)
        try:
            seqs = salvage.seqs_of(readable)
        except salvage.Unreadable:
            raise frames.FrameError(damaged.error, damaged.detail) from None
        self._check_count(len(seqs))
        for expected, seq in enumerate(seqs, self._next_seq):
            if seq != expected:
                raise _gap(expected, seq)
        return list(map(salvage.read, seqs, salvage.split(text, readable)))

    def _admit(self, messages: list[Storable], text: bytes) -> list[Storable]:  # noqa: C901  # over 10 until its room has landed (issue 14)
        self._check_count(len(messages))
        problems: list[tuple[int, str, str]] = []
        suspects: list[int] = []
        bodies: list[bytes] = []
        depth_max = self._limits.json_depth_max
        expected = self._next_seq
        for index, message in enumerate(messages):
            if message.seq != expected:
                raise _gap(expected, message.seq)
            expected += 1
            if type(message) is not frames.Message:
                assert type(message) is frames.Unusable
                messages[index] = self._unusable(
                    message.seq, message.error, message.detail, message.raw
                )
                continue
            data = bytes(message.data)
            problem = self._problem(message, data)
            if problem is not None:
                problems.append((index, *problem))
            elif may_exceed(data, depth_max):
                suspects.append(index)
                bodies.append(data)
            elif self._schema_problem is not None:
                said = self._schema_problem(message.type, data)
                if said is not None:
                    problems.append((index, "schema", said))
        if suspects:
            problems += self._problems_of(suspects, bodies, messages)
        if problems:
            raws = salvage.split(text, salvage.readable(text))
            for index, error, detail in problems:
                messages[index] = self._unusable(messages[index].seq, error, detail, raws[index])
        self._next_seq = expected
        return messages

    def _problems_of(
        self, suspects: list[int], bodies: list[bytes], messages: list[Storable]
    ) -> list[tuple[int, str, str]]:
        """Of those with many brackets: their depth, all at once since that is cheaper by far, and
        the schema of those that are not too deep.
        """
        limit = self._limits.json_depth_max
        deep = set(too_deep(bodies, limit))
        problems = []
        for place, index in enumerate(suspects):
            if place in deep:
                problems.append((index, "depth", f"nested deeper than {limit}"))
            elif self._schema_problem is not None:
                said = self._schema_problem(messages[index].type, bodies[place])  # type: ignore[union-attr]  # suspects are messages
                if said is not None:
                    problems.append((index, "schema", said))
        return problems

    def _check_count(self, count: int) -> None:
        """Before any work on bodies: a device cannot make us work beyond its credit."""
        limit = self._limits.messages_per_frame_max
        if not 1 <= count <= limit:
            raise PolicyViolation("frame", f"{count} messages, not 1 to {limit}")
        last = self._next_seq + count - 1
        if last > self._credit.limit:
            raise PolicyViolation(
                "credit", f"seq {last} is beyond the credit, {self._credit.limit}"
            )

    def _problem(self, message: frames.Message, data: bytes) -> tuple[str, str] | None:
        """Why `message` cannot be stored, its depth and schema aside: `error`, `detail`."""
        limits = self._limits
        if len(data) > limits.message_bytes_max:
            detail = f"data has {len(data)} bytes, over {limits.message_bytes_max}"
            return TOO_LARGE, detail
        if message.type not in self._known_types:
            if not is_message_type(message.type):
                return "type", "not one to eight tokens [A-Za-z0-9_-]{1,64} joined by dots"
            if len(self._known_types) < KNOWN_TYPES_MAX:
                self._known_types.add(message.type)
        if message.time is not UNSET and not is_timestamp(message.time):
            return "time", "not an RFC 3339 date-time with offset"
        return None

    def _unusable(self, seq: int, error: str, detail: str, raw: bytes) -> frames.Unusable:
        """A dead letter: the message whole if it is about as large as one may be."""
        size = len(raw)
        if error != TOO_LARGE and size <= self._limits.message_bytes_max + MEMBERS_BYTES_MAX:
            return frames.Unusable(seq, error, detail, raw)
        return frames.Unusable(seq, error, detail, raw[: salvage.LETTER_BYTES_MAX], size)


def _gap(expected: int, seq: int) -> PolicyViolation:
    return PolicyViolation("gap", f"expected seq {expected}, got {seq}")


TOO_LARGE: Final = "too_large"
MEMBERS_BYTES_MAX: Final = 1_024
"""More than what a well-formed message has beside its data: names, seq, type, time."""
KNOWN_TYPES_MAX: Final = 4_096
"""Well-formed types remembered by a node. A device that invents types can fill it, no more."""
