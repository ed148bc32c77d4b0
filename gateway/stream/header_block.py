"""Searches a block of NATS headers as it came, without a dictionary of all of them."""

from typing import Final

from tidegate.wire.traceparent import read_traceparent

TRACE_HEADER: Final = b"traceparent"


def header_of(block: bytes, name: bytes) -> bytes:
    """The value of the last header of this name, empty without one.

    The server writes its own headers behind those of the publisher.
    """
    line = b"\r\n" + name + b":"
    start = block.rfind(line)
    if start < 0:
        return b""
    return block[start + len(line) : block.find(b"\r\n", start + len(line))].strip()


def sampled_trace_in(block: bytes) -> str:
    """The sampled trace that a message belongs to; empty if there is none."""
    text = header_of(block, TRACE_HEADER)
    parent = read_traceparent(text.decode("latin-1")) if text else None
    return str(parent) if parent is not None and parent.sampled else ""
