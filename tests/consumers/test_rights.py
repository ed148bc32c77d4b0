"""Rules and redrives with exactly the rights of their users on the embedded server."""

import random

import pytest

from gateway.consumers.letters.redrive import Redrive
from gateway.events.dead_letters import Selection
from gateway.events.rules import Rule
from gateway.stream.link.dialing import NatsAddress, connect_once
from gateway.stream.link.link import NatsLink
from gateway.stream.reading.reader import OneConnection
from gateway.stream.server.nats_server import EmbeddedServer
from gateway.stream.server.roles import Role
from support.rules import runner_of, running
from support.waiting import eventually


@pytest.fixture
async def server(tmp_path):
    embedded = EmbeddedServer(
        tmp_path,
        fsync=False,
        batch_messages_max=1_000,
        port=0,
        rng=random.Random(1),
        on_restart=list,
        on_failure=list,
        rule_subjects=("rules.>",),
    )
    await embedded.start()
    yield embedded
    await embedded.stop()


async def connect(server, role):
    address = NatsAddress((server.url_of(role),), inbox_prefix=role.inbox_prefix)
    return await connect_once(address, name="test")


async def nothing(_client):
    pass


async def test_a_rule_runs_as_a_consumer_and_a_redrive_as_an_operator(server):
    operator, gateway = await connect(server, Role.OPERATORS), await connect(server, Role.GATEWAY)
    for name in ("EVENTS", "DEADLETTERS"):
        await operator.jetstream().add_stream(name=name, subjects=[f"{name.lower()}.>"])
    headers = {
        "Tidegate-Error": "schema",
        "Tidegate-Outbox": "o1",
        "Tidegate-Seq": "1",
        "ce-time": "2026-11-25T10:00:00Z",
    }
    letter = b'{"seq":1,"type":"battery.low","data":{"soc":1}}'
    await gateway.jetstream().publish("deadletters.default.veh-1", letter, headers=headers)

    rule = Rule.model_validate(
        {
            "name": "low",
            "when": {"type": ["battery.low"]},
            "to": "nats:rules.low.{device}",
            "from": "start",
        }
    )
    address = NatsAddress(
        (server.url_of(Role.CONSUMERS),), inbox_prefix=Role.CONSUMERS.inbox_prefix
    )
    denied = []
    link = NatsLink(
        address,
        name="test",
        on_up=nothing,
        on_ready=lambda _client: None,
        on_down=lambda: None,
        on_failure=lambda _exc: None,
        on_denied=denied.append,
        rng=random.Random(1),
    )
    link.start()
    runner = runner_of(link, rule)
    work = Redrive(
        OneConnection(operator),
        gateway,
        Selection(),
        patch=None,
        check=lambda _type, _data: None,
        rate_per_s=None,
        owner="me",
    )
    async with running(runner):
        outcome = await work.run()
        assert outcome.sent == 1
        await eventually(lambda: runner.position == 1)
    assert denied == []
    await link.stop()
    await operator.close()
    await gateway.close()
