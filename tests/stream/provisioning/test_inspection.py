"""What JetStream says of a stream, asked of a real server."""

import nats
import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from gateway.stream.errors import StreamMissing
from gateway.stream.provisioning import inspection
from support.eventstream import add_stream
from support.servers import nats_server


@pytest.fixture
async def client(tmp_path):
    with nats_server(tmp_path) as server:
        client = await nats.connect(server.url)
        try:
            yield client
        finally:
            await client.close()


async def make(client, **settings):
    config = StreamConfig(name="EVENTS", subjects=["events.>"], **settings)
    await add_stream(client.jetstream(), config)


async def test_the_facts_of_a_stream(client):
    await make(client, max_age=90.0)
    empty = await inspection.stream_facts(client, "EVENTS")
    assert (empty.last_seq, empty.messages) == (0, 0)
    assert empty.max_age_s == 90.0
    for number in range(3):
        await client.jetstream().publish("events.a", b"%d" % number)
    await client.jetstream().delete_msg("EVENTS", 1)
    facts = await inspection.stream_facts(client, "EVENTS")
    assert (facts.first_seq, facts.last_seq, facts.messages) == (2, 3, 2)
    assert facts.created == empty.created


async def test_a_stream_that_was_made_anew_has_another_moment_of_creation(client):
    await make(client)
    before = await inspection.stream_facts(client, "EVENTS")
    await client.jetstream().delete_stream("EVENTS")
    await make(client)
    after = await inspection.stream_facts(client, "EVENTS")
    assert after.created != before.created
    assert after.max_age_s == 0.0, "kept for ever"


async def test_the_id_of_a_message(client):
    await make(client)
    jetstream = client.jetstream()
    headers = {"A": "1", "Nats-Msg-Id": "t:d:o:7", "Z": "2"}
    await jetstream.publish("events.a", b"", headers=headers)
    await jetstream.publish("events.a", b"", headers={"A": "1"})
    await jetstream.publish("events.a", b"no headers at all")
    found = [await inspection.message_id_at(client, "EVENTS", seq) for seq in (1, 2, 3, 4)]
    assert found == ["t:d:o:7", "", "", None]


async def test_a_stream_that_is_missing_is_named(client):
    with pytest.raises(StreamMissing, match="EVENTS"):
        await inspection.stream_facts(client, "EVENTS")
    with pytest.raises(StreamMissing, match="EVENTS"):
        await inspection.message_id_at(client, "EVENTS", 1)


class Refusing:
    """A server that answers every question with one error."""

    async def request(self, _subject, _body, **_bounds):
        return Msg(self, data=b'{"error":{"code":503,"err_code":10008,"description":"no quorum"}}')


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: inspection.stream_facts(client, "EVENTS"),
        lambda client: inspection.message_id_at(client, "EVENTS", 1),
    ],
)
async def test_any_other_refusal_is_an_error_in_the_servers_words(ask):
    with pytest.raises(nats.errors.Error, match=r"EVENTS: no quorum \(10008\)"):
        await ask(Refusing())
