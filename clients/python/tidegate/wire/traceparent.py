"""`traceparent` of W3C Trace Context: the trace of a message, and the span before it.

See https://www.w3.org/TR/trace-context/#traceparent-header. Pure.
"""

import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Traceparent(NamedTuple):
    """A span, as those who continue its trace know it."""

    trace_id: bytes
    """16 bytes, not all zero."""
    span_id: bytes
    """8 bytes, not all zero."""
    sampled: bool = True
    """Whether the spans of this trace are recorded."""

    def __str__(self) -> str:
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{self.sampled:02x}"


def read_traceparent(text: str) -> Traceparent | None:
    """Read a traceparent; None for anything else, which the standard says is to be ignored."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Traceparent(bytes.fromhex(trace_id), bytes.fromhex(span_id), bool(int(flags, 16) & 1))
