"""Messages on their way into a stream, the batches that carry them, and what answers mean. Pure."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Struct

from gateway.session.owner import MessageOwner
from gateway.stream.lanes.encoding import SEQ_REUSED, Envelope
from gateway.stream.lanes.standing import NEVER, Standing
from gateway.stream.lanes.tracing import MessageTrace


class Pending(Struct, eq=False, gc=False):
    """A message on its way into a stream.

    The cyclic collector does not follow it: there are as many as messages, and each is let go of
    once it is settled.
    """

    owner: MessageOwner
    standing: Standing
    seq: int
    envelope: Envelope
    size: int
    absent_at: float
    """The last moment at which the message is known not to have been stored."""
    trace: MessageTrace | None = None
    """Of a sampled message."""
    reject: tuple[str, str] | None = None
    """`error` and `detail` if it goes to the dead letters."""
    repeated: bool = False
    """This node published the message before, and does not know whether it was stored."""
    ask_after: float = NEVER
    """A look-up from before this moment does not tell whether the message is stored."""

    @property
    def ours(self) -> bool:
        """Whether a duplicate of this message can only be the message itself: this node published
        it before, or its content is in its id.
        """
        return self.repeated or (self.reject is not None and self.reject[0] == SEQ_REUSED)


Disposal = Callable[[Pending, str], Pending]
"""Turns a message that JetStream will never take into its dead letter."""


class Kind(enum.Enum):
    """How a batch is published."""

    SINGLE = "single"
    ATOMIC = "atomic"
    FAST = "fast"
    ROUND = "round"


class Strategy(enum.Enum):
    """How batches of several messages are published; chosen once, by what the server can do."""

    PLAIN = "plain"
    ATOMIC = "atomic"
    FAST = "fast"


class Verdict(enum.Enum):
    """What an answer means for a message or a batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    PARTIAL = "partial"  # a duplicate inside an atomic batch, or a fast batch cut short
    AMBIGUOUS = "ambiguous"
    TOO_LARGE = "too_large"  # more messages than the server takes in a batch
    THROTTLED = "throttled"  # refused for now: a limit reached, no space, too many in flight
    REFUSED = "refused"  # never going to be stored: the message itself is the offence


@dataclass(frozen=True, slots=True)
class Answer:
    """What JetStream said of a message or a batch."""

    verdict: Verdict
    reason: str = ""
    stored_count: int = 0
    """PARTIAL only: how many messages, from the first, are known to be stored."""
    messages_max: int = 0
    """TOO_LARGE only: how many messages the server takes."""
    stored_at: int = 0
    """DUPLICATE only: the stream sequence of the message that was there first."""


@dataclass(slots=True, eq=False)
class Batch:
    """Messages that are published together, or in one round of single publishes."""

    number: int
    kind: Kind
    items: list[Pending]
    started_at: float
    size: int = 0
    """Bytes."""
    sent: int = 0
    """Messages, from the first, that were sent ahead."""
    complete: bool = False
    """It takes no more messages."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """The answers so far, by place, if they come one by one."""

    @property
    def answered_one_by_one(self) -> bool:
        """Whether each message gets an answer of its own."""
        return self.kind is Kind.ROUND

    @property
    def reason(self) -> str:
        """Why a round has to be repeated: the first reason among its answers."""
        return next((each.reason for each in self.answers.values() if each.reason), "timeout")


def one_per_device(items: list[Pending]) -> tuple[list[Pending], list[Pending]]:
    """Split into the first message of each device and all that come after."""
    first: list[Pending] = []
    later: list[Pending] = []
    seen: set[str] = set()
    for item in items:
        if item.standing.device in seen:
            later.append(item)
        else:
            seen.add(item.standing.device)
            first.append(item)
    return first, later


def mark_repeated(items: list[Pending]) -> None:
    """Nobody knows whether `items` were stored: they are published again."""
    for item in items:
        item.repeated = True
