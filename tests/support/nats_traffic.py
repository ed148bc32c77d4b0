"""What nats-server sends on a connection, and a client that notes what a parser delivers of it."""

from itertools import pairwise

from gateway.stream.link.parsing import BulkParser

RAW, OTHER = 7, 8
ACK = b"$JS.ACK.EVENTS.c.1.%d.%d.1764064800000000000.0"
HEADERS = b"NATS/1.0\r\nce-id: o1:1\r\n\r\n"


class Client:
    """Notes what a parser delivers."""

    def __init__(self):
        self.heard = []

    async def _process_msg(self, sid, subject, reply, data, headers):
        self.heard.append((sid, subject, reply, data, headers))

    async def _process_ping(self):
        self.heard.append("ping")

    async def _process_pong(self):
        self.heard.append("pong")

    async def _process_err(self, message):
        self.heard.append(message)


def with_headers(sid, number, payload):
    words = (
        b"events.t.d.x",
        sid,
        ACK % (number, number),
        len(HEADERS),
        len(HEADERS) + len(payload),
    )
    return b"HMSG %b %d %b %d %d\r\n%b%b\r\n" % (*words, HEADERS, payload)


STATUS = b"HMSG _INBOX.x %d 16 16\r\nNATS/1.0 100\r\n\r\n\r\n" % RAW
BARE = b"MSG events.t.d.x %d %b 2\r\n{}\r\n" % (RAW, ACK % (2, 2))
PUBACK = b'MSG _INBOX.y %d 11\r\n{"seq":123}\r\n' % OTHER
ANSWER = b'MSG _INBOX.x %d 11\r\n{"seq":124}\r\n' % RAW
LARGE = with_headers(RAW, 4, b'"HMSG x 7 y 1 1\r\nPING\r\n%b"' % (b"z" * 9_000))
TRAFFIC = [
    with_headers(RAW, 1, b"{}"),
    with_headers(RAW, 2, b""),
    STATUS,
    with_headers(RAW, 3, b'{"a":"\r\nPING\r\n"}'),
    b"PING\r\n",
    with_headers(OTHER, 9, b"[]"),
    BARE,
    LARGE,
    PUBACK,
    ANSWER,
    b"-ERR 'Permissions Violation'\r\n",
    with_headers(RAW, 5, b"7"),
    with_headers(RAW, 6, b"8"),
    b"+OK\r\n",
    b"PONG\r\n",
]


async def delivered(make, packets):
    client = Client()
    parser = make(client)
    for packet in packets:
        await parser.parse(packet)
    return client.heard


def bulk(client):
    def take(subject, reply, data, headers):
        client.heard.append((RAW, subject, reply, data, headers))

    return BulkParser(client, {RAW: take})


def cut(stream, places):
    edges = [0, *sorted(places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]
