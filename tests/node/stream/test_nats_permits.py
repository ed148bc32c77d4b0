"""What NATS lets a node do: what is missing is said once, and again when it is back."""

import pytest
from structlog.testing import capture_logs

from gateway.node.stream.nats_permits import NatsPermits


class Client:
    discarded = 0

    async def discard(self):
        self.discarded += 1


@pytest.fixture
def answers(monkeypatch):
    """What the server would say next: rights that are missing, and streams."""
    said = {"rights": [], "streams": [], "fails": None}

    async def missing_rights(_client, _denials):
        return list(said["rights"])

    async def missing_streams(_client):
        if said["fails"] is not None:
            raise said["fails"]
        return list(said["streams"])

    monkeypatch.setattr("gateway.node.stream.nats_permits.missing_rights", missing_rights)
    monkeypatch.setattr("gateway.node.stream.nats_permits.missing_streams", missing_streams)
    return said


async def test_a_missing_right_is_trouble_until_it_is_granted(answers):
    permits, client = NatsPermits(), Client()
    answers["rights"] = ["publish events.>"]
    with capture_logs() as logs:
        await permits.check_rights(client)
        await permits.look(client)
        assert (permits.trouble, permits.rights_missing) == ("nats_rights", True)
        answers["rights"] = []
        await permits.look(client)
    assert permits.trouble is None
    assert [line["event"] for line in logs] == ["nats_rights_missing", "nats_rights_granted"]


async def test_a_subscription_that_is_missing_needs_a_fresh_connection(answers):
    permits, client = NatsPermits(), Client()
    answers["rights"] = ["subscribe commands.*.*"]
    await permits.check_rights(client)
    await permits.look(client)
    assert client.discarded == 1


async def test_a_stream_that_is_missing_is_named_once(answers):
    permits, client = NatsPermits(), Client()
    answers["streams"] = ["EVENTS"]
    with capture_logs() as logs:
        await permits.look(client)
        await permits.look(client)
        assert permits.trouble == "no_stream"
        assert permits.status()["missing_streams"] == ["EVENTS"]
        answers["streams"] = []
        await permits.look(client)
    assert [line["event"] for line in logs] == ["stream_missing", "stream_is_back"]


async def test_a_server_that_does_not_answer_changes_nothing(answers):
    permits = NatsPermits()
    answers["streams"] = ["EVENTS"]
    await permits.look(Client())
    answers["fails"] = TimeoutError()
    await permits.look(Client())
    assert permits.trouble == "no_stream"


def test_a_denial_is_logged_once_a_connection_and_the_list_is_bounded():
    permits = NatsPermits()
    with capture_logs() as logs:
        for number in (1, 1, *range(200)):
            permits.on_denied(f"Permissions Violation for Publish to {number}")
    assert len(logs) == len(permits.denied) == 100
    permits.on_down()
    assert permits.denied == []
