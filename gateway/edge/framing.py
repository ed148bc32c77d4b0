"""Where WebSocket frames begin and end (RFC 6455 section 5.2), and the commonest one read at once.

Nearly all that devices send are small text frames, one a packet. The Sans-I/O core reads any frame
through generators and objects; this reads that one kind straight from the packet and knows, while
the core reads the others, whether the next packet begins with a frame. Pure.
"""

from typing import Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the C one, if built

ALIGNED: Final = 0
"""The next byte begins a frame."""
UNKNOWN: Final = -1
"""A frame's head was cut in two; nobody keeps the halves, and the core reads on alone."""

_FINAL_TEXT: Final = 0x81
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_HEAD: Final = 6
"""Bytes of the shortest head of a client: two and the masking key."""


def sole_text(data: bytes, size_max: int) -> bytes | None:
    """The payload of `data` if that is exactly one masked text frame, whole in every sense.

    Args:
        data: what was read, beginning with a frame.
        size_max: bytes of the largest payload.

    Returns:
        None for anything else, however lawful: it is the core's to judge.
    """
    total = len(data)
    if total < _HEAD or data[0] != _FINAL_TEXT:
        return None
    size = data[1] - _MASKED
    begin = _HEAD
    if size == _LENGTH_16 and total > _HEAD + 1:
        size = data[2] << 8 | data[3]
        begin += 2
        if size < _LENGTH_16:
            return None
    if size != total - begin or size > size_max:
        return None
    return apply_mask(data[begin:], data[begin - 4 : begin])


def owed_after(owed: int, data: bytes) -> int:
    """How many bytes the frame under way still lacks once `data` has been read.

    Args:
        owed: as this was before; not UNKNOWN.
        data: what was read.

    Returns:
        That many, ALIGNED if there are none, UNKNOWN if `data` ends within the head of a frame.
    """
    position, end = owed, len(data)
    while position < end:
        if end - position < 2:  # noqa: PLR2004  # RFC 6455 section 5.2
            return UNKNOWN
        second = data[position + 1]
        size = second & _LENGTH
        begin = position + (_HEAD if second & _MASKED else _HEAD - 4)
        wide = 2 if size == _LENGTH_16 else 8 if size == _LENGTH_64 else 0
        if wide:
            if end < position + 2 + wide:
                return UNKNOWN
            size = int.from_bytes(data[position + 2 : position + 2 + wide], "big")
        position = begin + wide + size
    return position - end


def text_frame(text: bytes) -> bytes:
    """What the core would write for an unmasked, unfragmented text message."""
    size = len(text)
    if size < 126:  # noqa: PLR2004  # RFC 6455 section 5.2
        return b"\x81%c%b" % (size, text)
    if size < 65536:  # noqa: PLR2004  # as above
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


def close_frame(code: int, reason: str) -> bytes:
    """An unmasked close frame; `reason` of at most 123 bytes (RFC 6455 section 5.5.1)."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return b"\x88%c%b" % (len(payload), payload)
