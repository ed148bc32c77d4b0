"""A pull consumer's book: what was asked for, what the server says, when it is of no use."""

import json

import nats.errors
import pytest

from gateway.stream.reading.pull_consumer import PullConsumer


class JetStream:
    def __init__(self, client):
        self._client = client

    async def delete_consumer(self, stream, name):
        if self._client.fails is not None:
            raise self._client.fails
        self._client.deleted.append((stream, name))


class Client:
    """Takes what is written, while it is connected."""

    def __init__(self):
        self.is_connected = True
        self.fails = None
        self.written = []
        self.unsubscribed = []
        self.deleted = []

    def write(self, data):
        if self.is_connected:
            self.written.append(data)
        return self.is_connected

    async def unsubscribe_raw(self, subscription):
        self.unsubscribed.append(subscription)

    def jetstream(self, timeout):
        assert timeout > 0
        return JetStream(self)


def consumer_of(client):
    return PullConsumer(client, "EVENTS", "name", "_INBOX.a.b")


def status(line, **headers):
    lines = [f"NATS/1.0 {line}", *(f"{name.replace('_', '-')}: {v}" for name, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_pull_is_one_publish_with_a_reply():
    client = Client()
    consumer = consumer_of(client)
    consumer.pull(25)
    (command,) = client.written
    line, _, body = command.partition(b"\r\n")
    assert line == b"PUB $JS.API.CONSUMER.MSG.NEXT.EVENTS.name _INBOX.a.b %d" % (len(body) - 2)
    asked = json.loads(body)
    assert asked["batch"] == 25
    assert 0 < asked["idle_heartbeat"] * 2 <= asked["expires"], "the server takes no less"
    consumer.pull(5)
    assert consumer.asked == 30


def test_without_a_connection_nothing_counts_as_asked():
    client = Client()
    client.is_connected = False
    consumer = consumer_of(client)
    consumer.pull(25)
    assert consumer.asked == 0


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (status("100 Idle Heartbeat"), 30),
        (status("408 Request Timeout", Nats_Pending_Messages=12, Nats_Pending_Bytes=0), 18),
        (status("404 No Messages", Nats_Pending_Messages=99), 0),
        (status("408 Request Timeout"), 0),
        (status("409 Message Size Exceeds MaxBytes"), 30),
        (status("409 Exceeded MaxRequestBatch of 10"), 0),
    ],
)
def test_what_is_left_of_the_requests_after_a_status(said, asked):
    consumer = consumer_of(Client())
    consumer.pull(30)
    consumer.on_status(said)
    assert consumer.asked == asked


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (status("409 Consumer Deleted"), "409 Consumer Deleted"),
        (status("409 Leadership Change"), "409 Leadership Change"),
        (status("503"), "503"),
        (b"", "no responders"),
    ],
)
def test_any_other_status_ends_it_with_the_servers_words(said, reason):
    consumer = consumer_of(Client())
    consumer.on_status(said)
    assert (consumer.ended.is_set(), consumer.reason) == (True, reason)


def test_a_heartbeat_and_the_end_of_a_request_do_not_end_it():
    consumer = consumer_of(Client())
    for said in (status("100 Idle Heartbeat"), status("408 Request Timeout")):
        consumer.on_status(said)
    assert not consumer.ended.is_set()


async def test_closing_leaves_nothing_on_the_server():
    client = Client()
    consumer = consumer_of(client)
    consumer.subscription = subscription = object()
    await consumer.close()
    assert consumer.ended.is_set()
    assert (client.unsubscribed, client.deleted) == ([subscription], [("EVENTS", "name")])


@pytest.mark.parametrize("connected", [True, False])
async def test_closing_asks_nothing_of_the_server_where_that_is_pointless(connected):
    client = Client()
    client.is_connected = connected
    consumer = consumer_of(client)
    if not connected:
        consumer.subscription = object()
    await consumer.close()
    assert consumer.ended.is_set()
    assert (client.unsubscribed, client.deleted) == ([], [])


@pytest.mark.parametrize("failure", [nats.errors.Error("cut"), TimeoutError()])
async def test_closing_survives_a_server_that_does_not_answer(failure):
    client = Client()
    client.fails = failure
    consumer = consumer_of(client)
    consumer.subscription = object()
    await consumer.close()
    assert consumer.ended.is_set()
