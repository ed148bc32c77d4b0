"""Whatever comes back for a publish, the delivery that waits for it hears of it."""

import json

import pytest

from gateway.consumers.delivery.answers import Answers
from gateway.consumers.errors import TargetAway


class Client:
    """A connection that keeps what subscribes to it."""

    def __init__(self):
        self.writes = True

    def new_inbox(self):
        return "_INBOX.x"

    async def subscribe_direct(self, subject, callback):
        assert subject == "_INBOX.x.*"
        self.answer = callback

    async def flush(self):
        pass

    def write(self, commands):
        return self.writes


@pytest.fixture
async def client():
    return Client()


@pytest.fixture
async def answers(client):
    made = Answers(client)
    await made.open()
    return made


@pytest.mark.parametrize(
    ("data", "headers", "error"),
    [
        (json.dumps({"stream": "LAB", "seq": 7}).encode(), None, None),
        (b"", {"Status": "503"}, "no stream answers there"),
        (b"nonsense", None, "the answer is no PubAck"),
    ],
)
async def test_each_answer_ends_the_wait_for_it(client, answers, data, headers, error):
    reply, future = answers.reply()
    client.answer(reply.decode(), data, headers)
    (found,) = await answers.wait([future])
    assert (found.error.description if found.error else None) == error
    client.answer(reply.decode(), data, headers)  # a second answer is one for nobody


async def test_an_answer_that_nobody_waits_for_any_more_is_ignored(client, answers):
    reply, future = answers.reply()
    future.cancel()
    client.answer(reply.decode(), b"{}", None)
    other, waited = answers.reply()
    answers.forget_cancelled()
    client.answer(other.decode(), b"{}", None)
    assert waited.done()


async def test_a_lost_connection_is_a_target_that_is_away(client, answers):
    answers.write(b"PUB x 0\r\n\r\n")
    client.writes = False
    with pytest.raises(TargetAway):
        answers.write(b"PUB x 0\r\n\r\n")
