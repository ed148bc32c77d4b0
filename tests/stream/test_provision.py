import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from support.servers import nats_server

from gateway.stream.errors import IncompatibleServer, IncompatibleStream
from gateway.stream.lane import Strategy
from gateway.stream.provision import (
    StreamSettings,
    check_payload,
    choose_strategy,
    provision,
    server_version,
    stream_configs,
)

WANTED = StreamSettings(
    replicas=1,
    max_age_s=3600,
    max_bytes=0,
    duplicate_window_s=120,
    deny_delete=True,
    deny_purge=True,
)


@pytest.fixture
async def client(tmp_path):
    with nats_server(tmp_path) as server:
        connected = await nats.connect(server.url)
        yield connected
        await connected.close()


def configs(client, **changes):
    wanted = StreamSettings(**{**{n: getattr(WANTED, n) for n in WANTED.__slots__}, **changes})
    return stream_configs({"EVENTS": wanted, "DEADLETTERS": wanted}, server_version(client))


async def test_missing_streams_are_created_and_existing_ones_left_alone(client):
    assert await provision(client, configs(client)) == ["EVENTS", "DEADLETTERS"]
    assert await provision(client, configs(client)) == []
    info = await client.jetstream().stream_info("EVENTS")
    assert info.config.subjects == ["events.>"]
    assert info.config.deny_delete
    assert info.config.deny_purge
    assert info.config.allow_atomic
    assert info.config.discard == DiscardPolicy.NEW
    assert info.config.duplicate_window == 120


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_age_s": 7200}, "max_age is 3600"),
        ({"max_bytes": 10**9}, "max_bytes is None"),
        ({"duplicate_window_s": 60}, "duplicate_window is 120"),
        ({"deny_delete": False}, "deny_delete is True"),
        ({"deny_purge": False}, "deny_purge is True"),
    ],
)
async def test_a_difference_is_refused_and_named(client, changes, named):
    await provision(client, configs(client))
    with pytest.raises(IncompatibleStream, match=named):
        await provision(client, configs(client, **changes))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"retention": RetentionPolicy.WORK_QUEUE}, "retention is workqueue"),
        ({"storage": StorageType.MEMORY}, "storage is memory"),
        ({"subjects": ["events.>", "other"]}, "subjects is"),
        ({"discard": DiscardPolicy.OLD}, "discard is old"),
        ({"max_msgs": 5}, "max_msgs is 5"),
        ({"no_ack": True}, "no_ack is True"),
    ],
)
async def test_a_stream_somebody_else_made_is_refused(client, config, named):
    (ours, _) = configs(client)
    foreign = StreamConfig(**{**{n: getattr(ours, n) for n in vars(ours)}, **config})
    await client.jetstream().add_stream(foreign)
    with pytest.raises(IncompatibleStream, match=named):
        await provision(client, configs(client))


@pytest.mark.parametrize(
    ("version", "fsync", "replicas", "strategy"),
    [
        ((2, 10, 0), True, 1, Strategy.PLAIN),
        ((2, 12, 0), True, 3, Strategy.PLAIN),
        ((2, 12, 1), True, 1, Strategy.ATOMIC),
        ((2, 12, 1), False, 1, Strategy.PLAIN),
        ((2, 12, 1), False, 3, Strategy.ATOMIC),
        ((2, 14, 0), False, 1, Strategy.FAST),
        ((2, 15, 1), True, 3, Strategy.ATOMIC),
    ],
)
def test_the_strategy_follows_what_the_server_can_do(version, fsync, replicas, strategy):
    assert choose_strategy(version, fsync=fsync, replicas=replicas) is strategy


async def test_a_server_that_takes_less_than_a_device_may_send_is_refused(client):
    check_payload(client, 65_536)  # 1 MiB, as nats-server ships
    with pytest.raises(IncompatibleServer, match=r"max_payload .* is 1048576 bytes"):
        check_payload(client, 1_048_576)


@given(st.tuples(st.integers(2, 3), st.integers(0, 20), st.integers(0, 9)))
def test_an_old_server_is_asked_for_nothing_it_does_not_know(version):
    (events, _) = stream_configs({"EVENTS": WANTED, "DEADLETTERS": WANTED}, version)
    assert (events.allow_atomic is True) == (version >= (2, 12, 1))
    assert (events.allow_batched is True) == (version >= (2, 14, 0))
