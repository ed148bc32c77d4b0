"""What is kept of a frame that does not decode as a whole: its messages, one by one.

A device must resend what is not acknowledged. Closing for one message that cannot be used would
make it loop for ever on that message, so each message that can be told from the others and has its
`seq` keeps its place in the order, and goes to the dead letters if it is damaged.

Cost is linear in the frame's bytes, whatever is wrong with it.
"""

import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from gateway.session.frames import Message, Seq, Unusable

LETTER_BYTES_MAX: Final = 4_096
"""Bytes kept of a message that is too large to be kept whole."""

_HEX: Final = rb"[0-9a-fA-F]"
_pair = re.compile(rb"\\u[dD][89abAB]%b{2}\\u[dD][c-fC-F]%b{2}" % (_HEX, _HEX))
_lone = re.compile(rb"\\u[dD][89a-fA-F]%b{2}" % _HEX)


class Unreadable(Exception):
    """These bytes are not messages with a `seq` each."""


class _SeqOnly(Struct):
    seq: Seq


_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_seq = msgspec.json.Decoder(_SeqOnly).decode


def split(text: bytes) -> list[bytes]:
    """The messages of a frame, each as its bytes stand there.

    Raises:
        Unreadable: they cannot be told from each other.
    """
    if text.lstrip()[:1] != b"[":
        return [text]
    readable = text
    try:
        try:
            raws = _decode_raws(text)
        except msgspec.DecodeError:
            readable = _without_lone_surrogates(text)
            raws = _decode_raws(readable)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Unreadable from exc
    if readable is text:
        return [bytes(raw) for raw in raws]
    pieces, end = [], 0
    for raw in map(bytes, raws):
        start = readable.index(raw, end)
        end = start + len(raw)
        pieces.append(text[start:end])
    return pieces


def seq_of(raw: bytes) -> int:
    """The `seq` of a message.

    Raises:
        Unreadable: it has none, or is no JSON.
    """
    try:
        try:
            return _decode_seq(raw).seq
        except msgspec.DecodeError:
            return _decode_seq(_without_lone_surrogates(raw)).seq
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Unreadable from exc


def read(seq: int, raw: bytes) -> Message | Unusable:
    """A message whose `seq` was read: as it is if it can be used."""
    try:
        return _decode_message(raw)
    except msgspec.ValidationError as exc:
        return Unusable(seq, "schema", str(exc), raw)
    except msgspec.DecodeError:
        detail = "an escaped surrogate without its other half (RFC 8259, section 8.2)"
        return Unusable(seq, "surrogate", detail, raw)


def _without_lone_surrogates(text: bytes) -> bytes:
    """JSON of the same structure and length, in which each lone surrogate is U+FFFD instead.

    A string may escape half of a surrogate pair (RFC 8259, section 8.2), but no Unicode text can
    hold it, so that parsers and databases refuse it. Escaped backslashes and whole pairs are lost:
    what comes back is for reading the structure only.
    """
    # Without escaped backslashes, each backslash left begins another escape.
    escapes = _pair.sub(b"_" * 12, text.replace(b"\\\\", b"__"))
    return _lone.sub(rb"\\ufffd", escapes)
