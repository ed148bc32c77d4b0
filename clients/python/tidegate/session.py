"""The device's side of a session: what to send, what was received, how much may be sent. Pure.

   GREETING --welcome--> SENDING --(all settled) further hello--> CHANGING --resume--> SENDING

A session sends from one outbox at a time. `seq`s are those of that outbox.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET

from tidegate.errors import ProtocolViolation
from tidegate.wire import frames
from tidegate.wire.depth import json_depth_exceeds

_FRAME_OVERHEAD_BYTES: Final = 64
"""What a frame takes beside the type, data and time of a message."""
_DEPTH_MAX: Final = 1_000
"""The client's own decoder cannot follow deeper nesting, whatever a gateway takes."""


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """The limits of a gateway. The defaults are those of gateways that do not name theirs.

    Sizes in bytes: `frame_bytes` of a frame, `message_bytes` of `data`. `depth` is the nesting of
    `data`.
    """

    frame_bytes: int = 65_536
    message_bytes: int = 65_536
    messages_per_frame: int = 1_000
    depth: int = 32

    @classmethod
    def of(cls, welcome: frames.Welcome) -> "GatewayLimits":
        """The limits that a `welcome` names. A limit below 1 was not named."""
        default = cls()
        frame_bytes = welcome.max_frame_bytes
        if frame_bytes < 1:
            # An older gateway takes a frame with at least one message.
            frame_bytes = max(default.frame_bytes, welcome.max_message_bytes + 1_024)
        return cls(
            frame_bytes=frame_bytes,
            message_bytes=max(1, welcome.max_message_bytes),
            messages_per_frame=_named(welcome.max_messages_per_frame, default.messages_per_frame),
            depth=min(_named(welcome.max_depth, default.depth), _DEPTH_MAX),
        )

    def objection(self, message: frames.Message) -> frames.Reject | None:
        """Why this message can never be sent to this gateway; None if it can."""
        data = bytes(message.data)
        if len(data) > self.message_bytes:
            detail = f"data is {len(data)} bytes, the gateway takes {self.message_bytes}"
            return frames.Reject(message.seq, "too_large", detail)
        size = frame_bytes_of(message)
        if size > self.frame_bytes:
            detail = f"its frame is {size} bytes, the gateway takes {self.frame_bytes}"
            return frames.Reject(message.seq, "too_large", detail)
        if json_depth_exceeds(data, self.depth):
            detail = f"data is nested deeper than the {self.depth} levels the gateway takes"
            return frames.Reject(message.seq, "depth", detail)
        return None


def frame_bytes_of(message: frames.Message) -> int:
    """An upper bound of the frame that sends this message alone."""
    time_bytes = len(message.time) + 10 if message.time is not UNSET else 0
    return len(bytes(message.data)) + len(message.type) + time_bytes + _FRAME_OVERHEAD_BYTES


def _named(value: int, default: int) -> int:
    return value if value >= 1 else default


class ClientSession:
    """The session of one connection. Give it the received frames, and ask it what may be sent."""

    def __init__(
        self,
        outbox: str,
        oldest: int,
        age_ms: int,
        sent: int | None = None,
        state: str | None = None,
    ) -> None:
        """
        Args:
            outbox: id of the outbox.
            oldest: the oldest unacknowledged seq; the next seq if there is none.
            age_ms: how long that message has waited.
            sent: the highest seq that any connection may have sent. None leaves it out, and all
                else that gateways older than `features` do not understand.
            state: the version of the state that the device has, empty for none; None if the device
                wants no state.
        """
        self._hello = _hello(outbox, oldest, age_ms, sent, state)
        self._limit = 0
        self._changing = False
        self.acked = oldest - 1
        self.sent = oldest - 1
        self.held = False
        self.welcome: frames.Welcome | None = None
        self.limits = GatewayLimits()

    def hello(self) -> bytes:
        """The first frame."""
        return frames.encode_named("hello", self._hello)

    @property
    def can_change(self) -> bool:
        """Whether this gateway lets a session continue with another outbox."""
        return self.welcome is not None and frames.OUTBOXES in self.welcome.features

    @property
    def takes_traces(self) -> bool:
        """Whether messages for this gateway may name their trace."""
        return self.welcome is not None and frames.TRACE in self.welcome.features

    @property
    def settles_results(self) -> bool:
        """Whether this gateway hears that a command was received, and says when a result is
        stored.
        """
        return self.welcome is not None and frames.RECEIPTS in self.welcome.features

    @property
    def was_too_brief(self) -> bool:
        """Whether the last hello was plain, and this gateway understands what it left out."""
        welcome = self.welcome
        return (
            welcome is not None
            and self._hello.receipts is UNSET
            and not {frames.STATE, frames.RECEIPTS}.isdisjoint(welcome.features)
        )

    @property
    def changing(self) -> bool:
        """Whether a further hello waits for its answer."""
        return self._changing

    @property
    def is_settled(self) -> bool:
        """Whether all sent messages are acknowledged, and no hello waits for its answer."""
        return self.welcome is not None and not self._changing and self.acked == self.sent

    @property
    def window(self) -> int:
        """How many messages may be sent now: none in a hold, whatever credit was granted before."""
        if self.welcome is None or self.held or self._changing:
            return 0
        return max(0, self._limit - self.sent)

    def change(
        self, outbox: str, oldest: int, age_ms: int, sent: int | None, state: str | None = None
    ) -> bytes:
        """Continue with another outbox: the further hello. Nothing may be sent until its answer."""
        assert self.can_change
        assert self.is_settled
        self._hello = _hello(outbox, oldest, age_ms, sent, state)
        self._changing = True
        self.acked = self.sent = self._limit = oldest - 1
        return self.hello()

    def receive(self, text: bytes) -> frames.ServerFrame:
        """Process a frame of the gateway; this changes `acked`, `window` and `held`.

        Raises:
            ProtocolViolation: not a frame of the contract, or not allowed in this state.
        """
        try:
            frame = frames.decode_server_frame(text)
        except (RecursionError, ValueError) as exc:
            raise ProtocolViolation(f"not a frame of the contract: {exc}") from None
        if frame.welcome is not UNSET:
            self._on_welcome(frame.welcome)
        elif self.welcome is None:
            raise ProtocolViolation("the first frame is not welcome")
        if frame.resume is not UNSET:
            if not self._changing:
                raise ProtocolViolation("a resume without a further hello")
            self._changing = False
            self._resume(frame.resume, frame.credit if frame.credit is not UNSET else 0)
        if frame.ack is not UNSET:
            self._on_ack(frame.ack, frame.credit if frame.credit is not UNSET else 0)
        if frame.hold is not UNSET:
            self.held = True
        return frame

    def messages(self, batch: Sequence[frames.Message]) -> bytes:
        """The frame that sends `batch`, which must follow the last message and fit the window."""
        assert len(batch) <= self.window
        for message in batch:
            assert message.seq == self.sent + 1
            self.sent = message.seq
        return frames.encode_messages(list(batch))

    def _on_ack(self, seq: int, credit: int) -> None:
        if self._changing or seq > self.sent:
            raise ProtocolViolation(f"ack {seq} of a message that was never sent")
        self.acked = max(self.acked, seq)
        self._limit = max(self._limit, self.acked + credit)
        self.held = False

    def _on_welcome(self, welcome: frames.Welcome) -> None:
        if self.welcome is not None:
            raise ProtocolViolation("a second welcome")
        self.welcome = welcome
        self.limits = GatewayLimits.of(welcome)
        self._resume(welcome.resume, welcome.credit)

    def _resume(self, resume: frames.Resume, credit: int) -> None:
        if resume.outbox == self._hello.outbox:
            # The stream may hold messages whose acknowledgement was lost.
            self.acked = self.sent = max(self.acked, min(resume.seq, frames.SEQ_MAX))
        self.held = False
        self._limit = self.acked + credit


def _hello(
    outbox: str, oldest: int, age_ms: int, sent: int | None, state: str | None
) -> frames.Hello:
    if sent is None:
        return frames.Hello(outbox, oldest, age_ms)
    return frames.Hello(
        outbox, oldest, age_ms, sent, state=UNSET if state is None else state, receipts=True
    )
