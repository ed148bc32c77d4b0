"""`tidegate tail --to`: stored events are published to another subject."""

import asyncio
import json
import random
import subprocess

import pytest
from nats.js.api import StreamConfig, StreamSource

from gateway.consumers.delivery.copying import Copy
from gateway.events.destinations import NatsDestination
from gateway.events.event import Event
from gateway.events.replaying import Pace
from gateway.stream.reading.replay import ReplayFilter, replay_as
from support.eventstream import linked, make_streams, publish_events
from support.redrives import connected
from support.servers import nats_server
from test_cli import TIDEGATE


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        await publish_events(server, [{"soc": soc} for soc in range(6)])
        yield server


@pytest.fixture
def tail(stream):
    async def tail(*arguments):
        command = [*TIDEGATE, "tail", "--nats-url", stream.url, *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60
        )

    return tail


async def make_target(server, **more):
    async with connected(server) as client:
        config = {"name": "LAB", "subjects": ["lab.>"], "allow_atomic": True} | more
        await client.jetstream().add_stream(StreamConfig(**config))


async def arrived(server):
    async with connected(server) as client:
        jetstream = client.jetstream()
        last = (await jetstream.stream_info("LAB")).state.messages
        return [await jetstream.get_msg("LAB", seq) for seq in range(1, last + 1)]


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_range_is_replayed_in_order(stream, tail, atomic):
    await make_target(stream, allow_atomic=atomic)
    where = '{"data": {"soc": [{"numeric": [">", 1]}]}}'
    result = await tail("--since", "all", "--where", where, "--to", "nats:lab.{device}.{type}")
    assert result.returncode == 0, result.stderr
    assert "4 events sent to nats:lab.{device}.{type} as replay-" in result.stderr
    found = await arrived(stream)
    assert [json.loads(each.data)["soc"] for each in found] == [2, 3, 4, 5]
    assert found[0].subject == "lab.veh-1.battery.low"
    assert found[0].headers["ce-id"] == "o1:3"
    await tail("--since", "all", "--to", "nats:lab.again", "--speed", "1000")
    assert len(await arrived(stream)) == 10  # another replay is another one


async def test_it_keeps_the_pace_at_which_events_were_stored(stream):
    """The clock is driven: what is slept is what passes."""
    await make_target(stream)
    now, slept = [0.0], []

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    def spaced(subject, headers, data, seq, _stored_ns):
        return Event(subject, headers, data, seq, seq * 10_000_000_000)

    async with linked(stream) as link:
        rng = random.Random(1)
        copy = Copy(link, NatsDestination("lab.{device}"), Pace(5.0, lambda: now[0]), rng, sleep)
        await copy.run(replay_as(spaced, link, ReplayFilter(), follow=False, rng=rng))
    assert copy.sent == 6
    assert slept == pytest.approx([2.0] * 5)


async def test_a_stream_that_events_sources_is_refused(stream, tail):
    async with connected(stream) as client:
        await client.jetstream().add_stream(StreamConfig("LAB", subjects=["lab.>"]))
        config = (await client.jetstream().stream_info("EVENTS")).config
        config.sources = [StreamSource("LAB")]
        await client.jetstream().update_stream(config)
    result = await tail("--since", "all", "--to", "nats:lab.x")
    assert result.returncode == 1
    assert "EVENTS sources LAB" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "all", "--to", "nats:events.a.b.c"), "begin with events are not for rules"),
        (("--since", "all", "--to", "https://x.example/"), "a replay goes to nats:<subject>"),
        (("--since", "all", "--to", "nats:lab.{user}"), "{user} is none of"),
        (("--to", "nats:lab.x"), "--to needs --since"),
        (("--speed", "2"), "--speed is for --to"),
        (("--since", "all", "--to", "nats:lab.x", "--dead-letters"), "deadletters redrive"),
    ],
)
async def test_a_mistake_is_named(tail, arguments, said):
    result = await tail(*arguments)
    assert result.returncode == 1
    assert said in result.stderr
