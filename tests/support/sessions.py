"""Sessions, and the frames that a device says to them."""

import json

import pytest

from gateway.session.errors import SessionError
from gateway.session.limits import SessionLimits
from gateway.session.machine import Session

LIMITS = SessionLimits(
    message_bytes_max=256,
    json_depth_max=4,
    messages_per_frame_max=10,
    credit_initial=4,
    credit_max=16,
)


def encoded(*seqs, message_type="t", data=1):
    batch = [{"seq": seq, "type": message_type, "data": data} for seq in seqs]
    return json.dumps(batch[0] if len(batch) == 1 else batch).encode()


def hello(oldest=1, outbox="box"):
    return json.dumps({"hello": {"outbox": outbox, "oldest": oldest}}).encode()


def greeted(oldest=1):
    session = Session(LIMITS)
    session.receive(hello(oldest))
    session.begin(oldest - 1, 100)
    return session


def offence(session, text):
    with pytest.raises(SessionError) as caught:
        session.receive(text)
    return type(caught.value), caught.value.error
