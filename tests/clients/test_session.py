import json

import pytest
from msgspec import UNSET, Raw

from clients.session import ClientSession, ProtocolViolation
from gateway.session.frames import Message


def welcome(credit=4, resume=0, outbox="box"):
    return json.dumps(
        {
            "welcome": {
                "session": "s",
                "credit": credit,
                "max_message_bytes": 100,
                "resume": {"outbox": outbox, "seq": resume},
                "first_retry_ms": 1,
                "keepalive_ms": 1,
            }
        }
    ).encode()


def message(seq):
    return Message(seq, "t", Raw(b"1"), UNSET)


def test_nothing_may_be_sent_before_the_welcome():
    session = ClientSession("box", 1, 0)
    assert session.window == 0
    assert json.loads(session.hello()) == {"hello": {"outbox": "box", "oldest": 1, "age_ms": 0}}
    with pytest.raises(ProtocolViolation, match="first frame"):
        session.receive(b'{"ack":1,"credit":3}')


def test_the_window_follows_credit():
    session = ClientSession("box", 5, 0)
    session.receive(welcome(credit=4, resume=4))
    assert session.window == 4
    session.messages([message(5), message(6)])
    assert session.window == 2
    session.receive(b'{"ack":5,"credit":8}')
    assert session.window == 7
    assert session.acked == 5


def test_what_the_stream_has_already_is_not_sent_again():
    session = ClientSession("box", 5, 0)
    session.receive(welcome(credit=4, resume=9))
    assert (session.acked, session.sent, session.window) == (9, 9, 4)


def test_a_watermark_of_another_outbox_is_not_ours():
    session = ClientSession("box", 5, 0)
    session.receive(welcome(credit=4, resume=900, outbox="other"))
    assert session.sent == 4


def test_a_hold_lasts_until_the_next_ack():
    session = ClientSession("box", 1, 0)
    session.receive(welcome())
    session.messages([message(1)])
    session.receive(b'{"hold":{"reason":"stream"}}')
    assert session.held
    session.receive(b'{"ack":1,"credit":4}')
    assert not session.held


@pytest.mark.parametrize(
    "text", [b"{", b'{"ack":"x"}', b'{"ack":99,"credit":1}', welcome()], ids=str
)
def test_what_no_gateway_says(text):
    session = ClientSession("box", 1, 0)
    session.receive(welcome())
    with pytest.raises(ProtocolViolation):
        session.receive(text)
