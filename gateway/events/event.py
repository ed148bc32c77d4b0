"""A stored event as a consumer reads it, with its members read only when they are asked for.

A sink that writes two columns of a message with eight headers must not pay for eight headers.
"""

from msgspec import Struct


class Event(Struct, frozen=True, gc=False):
    """One message of EVENTS.

    `subject` is `events.<tenant>.<device>.<type>`, `headers` the raw NATS header block, `data` the
    JSON that the device sent, `stored_at_ns` Unix nanoseconds of the server's clock.
    """

    subject: str
    headers: bytes
    data: bytes
    stream_seq: int
    stored_at_ns: int

    @property
    def tenant(self) -> str:
        return self.subject.split(".", 2)[1]

    @property
    def device(self) -> str:
        return self.subject.split(".", 3)[2]

    @property
    def type(self) -> str:
        return self.subject.split(".", 3)[3]

    def header(self, name: bytes) -> str:
        """The value of a header, empty if it is absent."""
        return self._value(b"\r\n" + name + b":").decode()

    @property
    def time_text(self) -> bytes:
        """`time` as it came."""
        return self._value(b"\r\nce-time:")

    def _value(self, line: bytes) -> bytes:
        headers = self.headers
        start = headers.rfind(line)  # what consumers ask for stands towards the end
        if start < 0:
            return b""
        start += len(line)
        return headers[start : headers.index(b"\r", start)].strip()

    @property
    def message_id(self) -> str:
        """`Nats-Msg-Id`: `<tenant>:<device>:<outbox>:<seq>` for what a device sent."""
        return self.header(b"Nats-Msg-Id")

    @property
    def position_seq(self) -> int:
        """Its sequence in the stream from which its consumer reads it."""
        return self.stream_seq

    @property
    def position_id(self) -> str:
        """`Nats-Msg-Id` there."""
        return self.message_id

    @property
    def time(self) -> str:
        """When it happened, RFC 3339, as the device or the gateway said."""
        return self.header(b"ce-time")

    @property
    def outbox(self) -> str:
        return self.header(b"ce-id").rpartition(":")[0]

    @property
    def seq(self) -> int:
        """The seq in its outbox; 0 if the event has none."""
        seq = self.header(b"ce-id").rpartition(":")[2]
        return int(seq) if seq.isdecimal() else 0
