"""The device's side of a session, pure: what to say, what was heard, how much may be sent."""

from collections.abc import Sequence

from msgspec import UNSET

from gateway.session import frames


class ProtocolViolation(Exception):
    """The gateway said something a gateway does not say."""


class ClientSession:
    """One connection's session. Feed it frames; ask it what may be sent."""

    def __init__(self, outbox: str, oldest: int, age_ms: int) -> None:
        """
        Args:
            outbox: id of the outbox.
            oldest: oldest seq not yet acknowledged; the next to be given if there is none.
            age_ms: how long that message has waited.
        """
        self._hello = frames.Hello(outbox, oldest, age_ms)
        self._limit = 0
        self.acked = oldest - 1
        self.sent = oldest - 1
        self.held = False
        self.welcome: frames.Welcome | None = None

    def hello(self) -> bytes:
        """The first frame."""
        return frames.encode_named("hello", self._hello)

    @property
    def window(self) -> int:
        """Messages that may be sent now: none in a hold, whatever was granted before."""
        if self.welcome is None or self.held:
            return 0
        return max(0, self._limit - self.sent)

    def receive(self, text: bytes) -> frames.ServerFrame:
        """Take a frame of the gateway; `acked`, `window` and `held` follow it.

        Raises:
            ProtocolViolation: no frame of the contract, or a welcome that does not fit.
        """
        try:
            frame = frames.decode_server_frame(text)
        except frames.FrameError as exc:
            raise ProtocolViolation(str(exc)) from None
        if frame.welcome is not UNSET:
            self._on_welcome(frame.welcome)
        elif self.welcome is None:
            raise ProtocolViolation("the first frame is not welcome")
        if frame.ack is not UNSET:
            if frame.ack > self.sent:
                raise ProtocolViolation(f"ack {frame.ack} of what was never sent")
            self.acked = max(self.acked, frame.ack)
            credit = frame.credit if frame.credit is not UNSET else 0
            self._limit = max(self._limit, self.acked + credit)
            self.held = False
        if frame.hold is not UNSET:
            self.held = True
        return frame

    def messages(self, batch: Sequence[frames.Message]) -> bytes:
        """The frame that sends `batch`, which must follow what was sent and fit the window."""
        assert len(batch) <= self.window
        for message in batch:
            assert message.seq == self.sent + 1
            self.sent = message.seq
        return frames.encode_messages(list(batch))

    def _on_welcome(self, welcome: frames.Welcome) -> None:
        if self.welcome is not None:
            raise ProtocolViolation("a second welcome")
        if welcome.resume.outbox == self._hello.outbox:
            # The stream may hold more than we heard acknowledged.
            self.acked = self.sent = max(self.acked, welcome.resume.seq)
        self.welcome = welcome
        self._limit = self.acked + welcome.credit
