"""Searches a block of NATS headers as it came, without a dictionary of all of them."""


def header_of(block: bytes, name: bytes) -> bytes:
    """The value of the last header of this name, empty without one.

    The server writes its own headers behind those of the publisher.
    """
    line = b"\r\n" + name + b":"
    start = block.rfind(line)
    if start < 0:
        return b""
    return block[start + len(line) : block.find(b"\r\n", start + len(line))].strip()
