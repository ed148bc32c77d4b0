"""What is kept of a frame that does not decode as a whole: its messages, one by one.

A device must resend what is not acknowledged. Closing for one message that cannot be used would
make it loop for ever on that message, so each message that can be told from the others and has its
`seq` keeps its place in the order, and goes to the dead letters if it is damaged.

Cost is linear in the frame's bytes, whatever is wrong with it.
"""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from tidegate.wire.frames import Message, Seq, Unusable

LETTER_BYTES_MAX: Final = 4_096
"""Bytes kept of a message that is too large to be kept whole."""


class Unreadable(Exception):
    """These bytes are not messages with a `seq` each."""


class _SeqOnly(Struct):
    seq: Seq


_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_seq = msgspec.json.Decoder(_SeqOnly).decode
_decode_seqs = msgspec.json.Decoder(list[_SeqOnly]).decode


def readable(text: bytes) -> bytes:
    """JSON of the same structure and length without surrogates; `text` itself if it has none.

    A string may escape half of a surrogate pair (RFC 8259, section 8.2), but no Unicode text can
    hold it, so that parsers and databases refuse it. The strings change, so what comes back is for
    reading the structure only.
    """
    if b"\\ud" in text or b"\\uD" in text:
        return text.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")
    return text


def seqs_of(readable: bytes) -> list[int]:
    """The `seq` of each message of a frame, in their order. The bodies are passed over.

    Raises:
        Unreadable: they cannot be told from each other, or one has none.
    """
    try:
        if _is_array(readable):
            return [message.seq for message in _decode_seqs(readable)]
        return [_decode_seq(readable).seq]
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Unreadable from exc


def split(text: bytes, readable: bytes) -> list[bytes]:
    """The messages of a frame that has a `seq` in each, as their bytes stand in `text`."""
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
    """A message whose `seq` was read: as it is if it can be used."""
    try:
        return _decode_message(raw)
    except msgspec.ValidationError as exc:
        return Unusable(seq, "schema", str(exc), raw)
    except msgspec.DecodeError:
        detail = "an escaped surrogate without its other half (RFC 8259, section 8.2)"
        return Unusable(seq, "surrogate", detail, raw)


def _is_array(text: bytes) -> bool:
    return text.lstrip()[:1] == b"["
