"""Dead letters: what is stored of a message that is no event, or that EVENTS will not take. Pure.

A letter holds the original bytes, and the reason in its headers. Its id is that of the message, so
the look-ups by last message count letters too.
"""

import hashlib
from typing import Final
from urllib.parse import quote

from gateway.stream.lanes.encoding import (
    SEQ_REUSED,
    TOO_LARGE,
    Envelope,
    SourceHeaders,
    letter_envelope,
)
from gateway.stream.names import EVENTS

LETTER_BYTES_MAX: Final = 4_096
"""A message that is too large is kept up to here."""
_DETAILS: Final = {SEQ_REUSED: "another message was stored under this seq"}
_REFUSED: Final = "refused by the stream"
_DETAIL_CHARS_MAX: Final = 200
_DETAIL_SAFE: Final = " $.,:;'`()[]{}<>=/-_"


def write_letter(
    source: SourceHeaders,
    seq: int,
    error: str,
    detail: str,
    time: str,
    raw: bytes,
    original_bytes: int = 0,
    *,
    id_suffix: bytes = b"",
) -> Envelope:
    """A message for DEADLETTERS.

    Args:
        source: of the device and outbox.
        seq: of the message.
        error: one of a fixed set of names.
        detail: for a person. It may quote what the device sent.
        time: RFC 3339.
        raw: the original bytes, or their beginning.
        original_bytes: the size of the original where `raw` is only its beginning, else 0.
        id_suffix: tells letters of one seq apart.
    """
    headers = (
        b"%s%d%s\r\nce-time:%s\r\n%s\r\n"
        b"Tidegate-Outbox:%s\r\nTidegate-Seq:%d\r\nTidegate-Error:%s\r\nTidegate-Detail:%s\r\n"
        % (
            source.id_line,
            seq,
            id_suffix,
            time.encode(),
            source.source_line,
            source.outbox,
            seq,
            error.encode(),
            # The detail quotes what the device sent; percent-encoding keeps line ends out.
            quote(detail[:_DETAIL_CHARS_MAX], safe=_DETAIL_SAFE).encode(),
        )
    )
    if original_bytes:
        headers += b"Tidegate-Truncated:%d\r\n" % original_bytes
    return letter_envelope(source, headers, raw, time)


def letter_of(envelope: Envelope, seq: int, error: str) -> tuple[Envelope, str]:
    """The letter of a message that its stream will not take for `error`.

    An event is written as its device might have sent it. If it was too large, only its beginning is
    kept. The id of a message whose seq was used before gets a digest of its content: letters of two
    such messages are two letters, and the same letter twice is one.

    Returns:
        The letter, and the detail for the device.
    """
    raw, size, suffix = envelope.payload, 0, b""
    if envelope.stream == EVENTS:
        raw = b'{"seq":%d,"type":"%s","data":%s,"time":"%s"}' % (
            seq, envelope.type.encode(), raw, envelope.time.encode(),
        )  # fmt: skip
    if error == TOO_LARGE:
        size, raw = len(raw), raw[:LETTER_BYTES_MAX]
    if error == SEQ_REUSED:
        content = envelope.subject + b" " + envelope.payload
        suffix = b":" + hashlib.blake2b(content, digest_size=8).hexdigest().encode()
    detail = _DETAILS.get(error, _REFUSED)
    letter = write_letter(
        envelope.source, seq, error, detail, envelope.time, raw, size, id_suffix=suffix
    )
    return letter, detail
