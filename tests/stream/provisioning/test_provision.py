import re

import nats
import nats.js.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from gateway.stream.errors import IncompatibleServer, IncompatibleStream
from gateway.stream.lanes.batch import Strategy
from gateway.stream.provisioning.differences import Change
from gateway.stream.provisioning.provision import (
    StreamSettings,
    apply,
    check_payload,
    choose_strategy,
    plan,
    provision,
    server_version,
    stream_configs,
)
from support.servers import nats_server

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
        (
            {"max_age_s": 7200},
            "EVENTS: stream.events.max_age_s is 7200 in the settings and 3600 in the stream",
        ),
        (
            {"max_bytes": 10**9},
            "EVENTS: stream.events.max_bytes is 1000000000 in the settings and 0 in the stream",
        ),
        (
            {"duplicate_window_s": 60},
            "EVENTS: stream.duplicate_window_s is 60 in the settings and 120 in the stream",
        ),
        (
            {"deny_delete": False},
            "EVENTS: stream.deny_delete is false in the settings and true in the stream",
        ),
        (
            {"deny_purge": False},
            "EVENTS: stream.deny_purge is false in the settings and true in the stream",
        ),
    ],
)
async def test_differences_of_both_streams_are_refused_and_named_at_once(client, changes, named):
    await provision(client, configs(client))
    with pytest.raises(IncompatibleStream) as caught:
        await provision(client, configs(client, **changes))
    text = str(caught.value)
    assert named in text
    assert named.replace("EVENTS", "DEADLETTERS").replace("events", "deadletters") in text
    assert "tidegate provision --apply" in text


async def test_if_one_stream_differs_the_other_is_not_created(client):
    (ours, _) = configs(client, max_age_s=7200)
    await client.jetstream().add_stream(ours)
    with pytest.raises(IncompatibleStream, match="max_age_s is 3600"):
        await provision(client, configs(client))
    planned = await plan(client, configs(client))
    assert planned.missing == ("DEADLETTERS",)


FOREIGN = [
    ("retention", RetentionPolicy.WORK_QUEUE, "workqueue", Change.IMPOSSIBLE),
    ("retention", RetentionPolicy.INTEREST, "interest", Change.SAFE),
    ("storage", StorageType.MEMORY, "memory", Change.IMPOSSIBLE),
    ("subjects", ["events.>", "other"], "events.>, other", Change.SAFE),
    ("discard", DiscardPolicy.OLD, "old", Change.SAFE),
    ("max_msgs", 5, "5", Change.SAFE),
    ("max_msgs_per_subject", 5, "5", Change.SAFE),
    ("max_msg_size", 500, "500", Change.SAFE),
    ("no_ack", True, "True", Change.SAFE),
    ("allow_atomic", None, "unset", Change.SAFE),
    ("allow_batched", None, "unset", Change.SAFE),
    ("duplicate_window", 60.0, "60", Change.SAFE),
    ("deny_delete", False, "false", Change.SAFE),
    ("deny_purge", False, "false", Change.SAFE),
    ("max_age", 60.0 * 30, "1800", Change.SAFE),
    ("max_age", 7200.0, "7200", Change.LOSES),
    ("max_age", 0, "0", Change.LOSES),
]


@pytest.mark.parametrize(("field", "value", "shown", "change"), FOREIGN)
async def test_jetstream_does_with_a_difference_what_the_plan_says(
    client, field, value, shown, change
):
    (ours, _) = configs(client)
    foreign = StreamConfig(**{**{n: getattr(ours, n) for n in vars(ours)}, field: value})
    foreign.description = "somebody else's"
    await client.jetstream().add_stream(foreign)
    with pytest.raises(IncompatibleStream, match=f"(is|and) {re.escape(shown)}"):
        await provision(client, configs(client))
    planned = await plan(client, configs(client))
    assert [(each.field, each.change) for each in planned.differences] == [(field, change)]
    assert bool(planned.differences[0].advice) == (change is Change.IMPOSSIBLE)
    for accept_loss in (False, True):
        await apply(client, configs(client), accept_loss=accept_loss)
        left = (await plan(client, configs(client))).differences
        made = change is Change.SAFE or (change is Change.LOSES and accept_loss)
        assert left == (() if made else planned.differences)
    info = await client.jetstream().stream_info("EVENTS")
    assert info.config.description == "somebody else's"
    if change is Change.IMPOSSIBLE:
        with pytest.raises(nats.js.errors.ServerError):
            await client.jetstream().update_stream(ours)


@pytest.mark.parametrize("name", ["deny_delete", "deny_purge"])
async def test_the_plan_says_that_a_protection_cannot_be_removed(client, name):
    await provision(client, configs(client))
    planned = await plan(client, configs(client, **{name: False}))
    assert {each.change for each in planned.differences} == {Change.IMPOSSIBLE}
    assert "keep it true" in planned.differences[0].advice
    (ours, _) = configs(client, **{name: False})
    with pytest.raises(nats.js.errors.ServerError):
        await client.jetstream().update_stream(ours)


async def test_more_bytes_are_safe_and_fewer_lose(client):
    await provision(client, configs(client, max_bytes=10**9))
    for max_bytes, change in ((2 * 10**9, Change.SAFE), (0, Change.SAFE), (10**8, Change.LOSES)):
        planned = await plan(client, configs(client, max_bytes=max_bytes))
        assert {each.change for each in planned.differences} == {change}


@pytest.mark.parametrize(
    ("version", "fsync", "replicas", "alone", "strategy"),
    [
        ((2, 10, 0), True, 1, True, Strategy.PLAIN),
        ((2, 12, 0), True, 3, True, Strategy.PLAIN),
        ((2, 12, 1), True, 1, True, Strategy.ATOMIC),
        ((2, 12, 1), False, 1, True, Strategy.PLAIN),
        ((2, 12, 1), False, 3, True, Strategy.ATOMIC),
        ((2, 14, 0), False, 1, True, Strategy.LINKED),
        ((2, 14, 0), False, 1, False, Strategy.FAST),
        ((2, 14, 0), False, 3, True, Strategy.FAST),
        ((2, 15, 1), True, 3, True, Strategy.ATOMIC),
    ],
)
def test_the_strategy_follows_what_the_server_can_do(version, fsync, replicas, alone, strategy):
    assert choose_strategy(version, fsync=fsync, replicas=replicas, alone=alone) is strategy


async def test_a_server_that_takes_less_than_a_device_may_send_is_refused(client):
    check_payload(client, 65_536)  # 1 MiB, as nats-server ships
    with pytest.raises(IncompatibleServer, match=r"max_payload .* is 1048576 bytes"):
        check_payload(client, 1_048_576)


@given(st.tuples(st.integers(2, 3), st.integers(0, 20), st.integers(0, 9)))
def test_an_old_server_gets_no_option_that_it_does_not_know(version):
    (events, _) = stream_configs({"EVENTS": WANTED, "DEADLETTERS": WANTED}, version)
    assert (events.allow_atomic is True) == (version >= (2, 12, 1))
    assert (events.allow_batched is True) == (version >= (2, 14, 0))
