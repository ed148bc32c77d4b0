"""What NATS denies the gateway is found at once, right by right, on a real server."""

import nats
import pytest

from gateway.stream.names import STREAMS
from gateway.stream.provisioning import checkup
from gateway.stream.provisioning.checkup import Denials
from gateway.stream.provisioning.provision import (
    StreamSettings,
    provision,
    server_version,
    stream_configs,
)
from gateway.stream.server.rights import rights_of
from gateway.stream.server.roles import Role
from support.servers import nats_server

WANTED = StreamSettings(1, 0, 0, 120, deny_delete=False, deny_purge=False)


GRANTED = rights_of(Role.GATEWAY)
NEEDED = checkup.needed()[0]


def user(name, publish, subscribe):
    permissions = {"publish": list(publish), "subscribe": list(subscribe)}
    return {"user": name, "password": "p", "permissions": permissions}


USERS = [
    {"user": "admin", "password": "p"},
    user("gateway", GRANTED.publish, GRANTED.subscribe),
    user("deaf", GRANTED.publish, ["_INBOX.gateway.>"]),
    *(
        user(f"without-{place}", [each for each in GRANTED.publish if each != right], [">"])
        for place, right in enumerate(NEEDED)
    ),
]


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path, authorization={"users": USERS}) as running:
        yield running


class Signed:
    """A connection of a user who is denied what it must not do."""

    def __init__(self, server, name="gateway"):
        self._url = server.url.replace("nats://", f"nats://{name}:p@")
        self.denials = Denials()

    async def __aenter__(self):
        async def on_error(error):
            self.denials.add(str(error))

        self.client = await nats.connect(
            self._url, error_cb=on_error, inbox_prefix="_INBOX.gateway", allow_reconnect=False
        )
        return self

    async def __aexit__(self, *_):
        await self.client.close()


def test_a_denial_is_of_a_right():
    denials = Denials()
    denials.add("nats: 'permissions violation for publish to \"events.tidegate.rights.probe\"'")
    denials.add("nats: 'Permissions Violation for Subscription to \"_INBOX.gateway.AbC.*\"'")
    denials.add("nats: some other error")
    assert denials.publish("events.>")
    assert not denials.publish("deadletters.>")
    assert denials.subscribe("_INBOX.gateway.>")
    assert not denials.subscribe("commands.*.*")


def test_rights_to_publish_are_tried_anew_and_denied_subscriptions_are_kept():
    denials = Denials()
    denials.add('permissions violation for publish to "events.tidegate.rights.probe"')
    denials.add('permissions violation for subscription to "_inbox.gateway.x"')
    denials.forget_publishing()
    assert not denials.publish("events.>")
    assert denials.subscribe("_INBOX.gateway.>")


def test_the_right_to_create_streams_is_not_needed_where_they_are():
    spared = set(GRANTED.publish) - set(NEEDED)
    assert spared == {f"$JS.API.STREAM.CREATE.{name}" for name in STREAMS}


async def test_a_right_that_is_missing_is_named(server):
    for place, right in enumerate(NEEDED):
        async with Signed(server, f"without-{place}") as signed:
            missing = await checkup.missing_rights(signed.client, signed.denials)
        assert missing == [f"publish {right}"]


async def test_the_attempt_stores_nothing(server):
    async with Signed(server, "admin") as admin, Signed(server) as signed:
        settings = dict.fromkeys(STREAMS, WANTED)
        await provision(admin.client, stream_configs(settings, server_version(admin.client)))
        assert await checkup.missing_rights(signed.client, signed.denials) == []
        for stream in settings:
            info = await admin.client.jetstream().stream_info(stream)
            assert info.state.messages == 0


async def test_a_subscription_that_was_denied_is_named(server):
    async with Signed(server, "deaf") as signed:
        for right in GRANTED.subscribe:
            await signed.client.subscribe(right.replace(">", "x"))
        missing = await checkup.missing_rights(signed.client, signed.denials)
    assert missing == ["subscribe commands.*.*"]


async def test_the_streams_that_are_missing_are_named(server):
    async with Signed(server, "admin") as admin:
        assert await checkup.missing_streams(admin.client) == list(STREAMS)
        await admin.client.jetstream().add_stream(name="EVENTS", subjects=["events.>"])
        assert await checkup.missing_streams(admin.client) == list(STREAMS[1:])
