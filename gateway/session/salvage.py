"""Reads the messages of a frame that does not decode as a whole, one by one.

A device must send again what is not acknowledged. If the gateway closed the connection for one
damaged message, the device would send it again for ever. So each message that can be told from the
others and has its `seq` keeps its place in the order. A damaged one goes to the dead letters.

The cost is linear in the frame's bytes, whatever is wrong with the frame.
"""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from tidegate.wire.frames import Message, Seq, Unusable

LETTER_BYTES_MAX: Final = 4_096
"""Bytes that a dead letter keeps of a message that is too large to be kept whole."""


class _SeqOnly(Struct):
    seq: Seq


_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_seq = msgspec.json.Decoder(_SeqOnly).decode
_decode_seqs = msgspec.json.Decoder(list[_SeqOnly]).decode


def readable(text: bytes) -> bytes:
    """Make JSON of the same structure and length without surrogates; `text` itself if it has none.

    A string may escape half of a surrogate pair (RFC 8259, section 8.2), but no Unicode text can
    hold one, so parsers and databases refuse it. The strings of the result differ from those of
    `text`: use it only to read the structure.
    """
    if b"\\ud" in text or b"\\uD" in text:
        return text.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")
    return text


def seqs_of(readable: bytes) -> list[int] | None:
    """Read the `seq` of each message of a frame, in order, without reading the bodies.

    Returns:
        None if the messages cannot be told from each other, or if one has no `seq`.
    """
    try:
        if _is_array(readable):
            return [message.seq for message in _decode_seqs(readable)]
        return [_decode_seq(readable).seq]
    except (msgspec.DecodeError, RecursionError):
        return None


def split(text: bytes, readable: bytes) -> list[bytes]:
    """Split a frame whose messages all have a `seq` into the bytes of each message."""
    if not _is_array(text):
        return [text]
    raws = _decode_raws(readable)
    if readable is text:
        return [bytes(raw) for raw in raws]
    pieces, end = [], 0
    for raw in map(bytes, raws):
        start = readable.index(raw, end)
        end = start + len(raw)
        pieces.append(text[start:end])
    return pieces


def read(seq: int, raw: bytes) -> Message | Unusable:
    """Decode one message whose `seq` was read; if it is damaged, make it a dead letter."""
    try:
        return _decode_message(raw)
    except msgspec.ValidationError as exc:
        return Unusable(seq, "schema", str(exc), raw)
    except msgspec.DecodeError:
        detail = "an escaped surrogate without its other half (RFC 8259, section 8.2)"
        return Unusable(seq, "surrogate", detail, raw)


def _is_array(text: bytes) -> bool:
    return text.lstrip()[:1] == b"["
