"""Gateways that break a promise on purpose: the checker must catch each.

    python tests/support/broken.py MODE serve ...    as `tidegate serve ...`, but for the MODE

no-id       messages go out without their Nats-Msg-Id
ack-early   a message counts as settled when it is sent, not when JetStream has it
no-resume   nobody is looked up in the stream, however long ago it may have sent its messages
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec

from gateway.stream.lanes import encoding
from gateway.stream.lanes.runner import LaneRunner
from gateway.stream.lanes.standing import Standing


def without_id():
    honest = encoding.SourceHeaders.event

    def event(self, *arguments):
        envelope = honest(self, *arguments)
        line, _, body = envelope.body.partition(b"\r\n")
        assert line.startswith(b"Nats-Msg-Id:")
        shorter = envelope.headers_bytes - len(line) - 2
        return msgspec.structs.replace(envelope, headers_bytes=shorter, body=body)

    encoding.SourceHeaders.event = event


def ack_early():
    honest = LaneRunner.submit

    def submit(self, items, size):
        honest(self, items, size)
        for item in items:
            item.owner.stored(item.seq)

    LaneRunner.submit = submit


def without_resume():
    Standing.resume = lambda _self, hello, _now: hello.oldest - 1
    Standing.absent_at = lambda _self, _seq: time.perf_counter()


MODES = {"no-id": without_id, "ack-early": ack_early, "no-resume": without_resume}

if __name__ == "__main__":
    MODES[sys.argv.pop(1)]()
    from gateway.cli import main

    main()
