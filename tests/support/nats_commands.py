"""The protocol commands that a NATS client writes, read as a server reads them."""


def parse(wire):
    """Subject, reply, headers and payload of each command of a byte string."""
    commands = []
    while wire:
        line, _, wire = wire.partition(b"\r\n")
        verb, subject, *reply, headers_size, total_size = line.split(b" ")
        assert verb == b"HPUB"
        assert len(reply) <= 1
        body = wire[: int(total_size)]
        assert wire[int(total_size) : int(total_size) + 2] == b"\r\n"
        wire = wire[int(total_size) + 2 :]
        headers, payload = body[: int(headers_size)], body[int(headers_size) :]
        assert headers.endswith(b"\r\n\r\n")
        version, *lines = headers[:-4].split(b"\r\n")
        assert version in (b"NATS/1.0", b"NATS/1.0 200"), "a status is taken away by the server"
        pairs = dict(line.split(b":", 1) for line in lines)
        assert len(pairs) == len(lines)
        commands.append((subject, reply[0] if reply else b"", pairs, payload))
    return commands
