"""Where WebSocket frames begin and end (RFC 6455 section 5.2), and a fast path for text frames.

Nearly all frames of devices are small text frames, one or a few a packet. The Sans-I/O core reads
any frame through generators and objects. This module reads text frames straight from the packet,
and keeps track of where the next frame begins while the core reads the others. Pure.
"""

from typing import Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the C one, if built

EMPTY_PING: Final = b"\x89\x00"
"""A ping of a server, without data (RFC 6455 section 5.5.2)."""

_EMPTY_PONG: Final = b"\x8a\x80"
_FINAL_TEXT: Final = 0x81
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_HEAD: Final = 6
"""Bytes of the shortest head of a client: two and the masking key."""
_HEAD_MAX: Final = 10
"""Bytes of the longest head, without its masking key."""


def text_at(data: bytes, start: int, size_max: int) -> tuple[bytes, int] | None:
    """Read the masked text frame at `start`, if the whole of it is there.

    Args:
        data: what was read.
        start: where a frame begins.
        size_max: bytes of the largest payload.

    Returns:
        Its payload and where it ends. None for anything else (a fragment, another kind, an
        offence, a frame whose end is not there yet), which the core must judge.
    """
    total = len(data)
    begin = start + _HEAD
    if total < begin or data[start] != _FINAL_TEXT:
        return None
    size = data[start + 1] - _MASKED
    if size >= _LENGTH_16:
        wide = 2 if size == _LENGTH_16 else 8
        begin += wide
        if total < begin:
            return None
        size = int.from_bytes(data[start + 2 : start + 2 + wide], "big")
    end = begin + size
    if size < 0 or end > total or size > size_max:
        return None
    return apply_mask(data[begin:end], data[begin - 4 : begin]), end


def ends_empty_pong(data: bytes, start: int) -> int:
    """Where the masked pong without a payload ends that begins at `start`; 0 if there is none.

    It is the answer to `EMPTY_PING`.
    """
    end = start + _HEAD
    return end if data[start : start + 2] == _EMPTY_PONG and len(data) >= end else 0


class Edges:
    """Finds where frames begin in a stream that comes in pieces."""

    __slots__ = ("_head", "_owed", "at_edge")

    def __init__(self) -> None:
        self._owed = 0
        self._head = b""
        self.at_edge = True
        """Whether the next byte begins a frame."""

    def advance(self, data: bytes, start: int) -> int:
        """Go through `data` from `start` to the end of the frame there.

        Returns:
            The position of that end; the end of `data` if the frame is longer.
        """
        end = len(data)
        if not self._owed:
            head = self._head + data[start : start + _HEAD_MAX - len(self._head)]
            size = _frame_bytes(head)
            if size is None:
                self._head = head
                self.at_edge = False
                return end
            self._owed = size - len(self._head)
            self._head = b""
        passed = min(self._owed, end - start)
        self._owed -= passed
        self.at_edge = not self._owed
        return start + passed


def _frame_bytes(head: bytes) -> int | None:
    """Bytes of the frame that begins with `head`; None if that is too little to tell."""
    if len(head) < 2:  # noqa: PLR2004  # RFC 6455 section 5.2
        return None
    size = head[1] & _LENGTH
    wide = 2 if size == _LENGTH_16 else 8 if size == _LENGTH_64 else 0
    if wide:
        if len(head) < 2 + wide:
            return None
        size = int.from_bytes(head[2 : 2 + wide], "big")
    return 2 + wide + (4 if head[1] & _MASKED else 0) + size


def text_frame(text: bytes) -> bytes:
    """Make an unmasked, unfragmented text frame: the same bytes as the core's."""
    size = len(text)
    if size < 126:  # noqa: PLR2004  # RFC 6455 section 5.2
        return b"\x81%c%b" % (size, text)
    if size < 65536:  # noqa: PLR2004  # as above
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


def close_frame(code: int, reason: str) -> bytes:
    """Make an unmasked close frame; `reason` of at most 123 bytes (RFC 6455 section 5.5.1)."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return b"\x88%c%b" % (len(payload), payload)
