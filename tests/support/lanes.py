"""A lane of messages, for tests that play the server."""

import math

from msgspec import Raw

from gateway.stream.lanes.batch import Answer, Pending, Run, Strategy, Verdict, split_all
from gateway.stream.lanes.encoding import SEQ_REUSED, Envelope, SourceHeaders, letter_envelope
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.standing import Standing
from support.nats_commands import parse
from tidegate.wire.frames import Message

STORED = Answer(Verdict.STORED)
DUPLICATE = Answer(Verdict.DUPLICATE, stored_at=7)
TIMEOUT = Answer(Verdict.AMBIGUOUS, "timeout")
WINDOW_S = 20.0
SOURCE = SourceHeaders("t", "d", "o")


class Owner:
    def __init__(self, device="d", outbox="o"):
        self.device = device
        self.standing = Standing(("t", device, outbox), WINDOW_S)
        self.headers = SourceHeaders("t", device, outbox)
        self.superseded = False

    def stored(self, seq):
        raise NotImplementedError

    def rejected(self, seq, error, detail):
        raise NotImplementedError


class Client:
    """The connection of a runner: takes what is written, while it is connected."""

    def __init__(self):
        self.connected = True
        self.commands = []

    def write(self, data):
        if self.connected:
            self.commands += parse(data)
        return self.connected


def pending(owner, seq, stream="EVENTS", size=10, absent_at=0.0):
    envelope = Envelope(stream, b"HPUB s ", 12, b"\r\n%d\r\n" % seq, SOURCE, "a", "")
    return Pending(owner, owner.standing, seq, envelope, size, absent_at)


def run(owner, first, last, size=10, absent_at=0.0):
    messages = [Message(seq, "a", Raw(b"%d" % seq)) for seq in range(first, last + 1)]
    size *= len(messages)
    return Run(owner, owner.standing, messages, owner.headers, "", size, absent_at)


def dispose(item, reason):
    envelope = letter_envelope(SOURCE, b"", item.envelope.payload, "")
    absent_at = math.inf if reason == SEQ_REUSED else item.absent_at
    return Pending(
        item.owner,
        item.standing,
        item.seq,
        envelope,
        item.size,
        absent_at,
        item.trace,
        (reason, ""),
    )


def make(strategy=Strategy.ATOMIC, messages=100, size=10_000):
    lane = Lane(
        batch_messages_max=messages,
        batch_bytes_max=size,
        duplicate_window_s=WINDOW_S,
        dispose=dispose,
    )
    lane.strategy = strategy
    return lane


def seqs(items):
    return [item.seq for item in split_all(items)]


def named(items):
    return [(item.owner.device, item.seq) for item in split_all(items)]
