"""Fault runs of rules, short: an honest route is clean, and the broken one is found out."""

import nats
import pytest
from nats.js.api import StreamConfig

from loadtest.lab.route_checker import Findings, check
from loadtest.lab.route_faults import staged, through_faults, verdict
from loadtest.servers.eventstream import fill, make_streams
from loadtest.servers.receiver import Received
from support.servers import nats_server

KILLED = "both routes killed for twice the duplicate window"


async def findings(directory, *, events, faults, kinds=None, control=None):
    """What the checker finds after a run. `kinds` are the faults that are wanted."""
    async with staged(directory, seed=5, control=control) as stage:
        if kinds is not None:
            stage.faults.only(set(kinds))
        await through_faults(stage, events=events, faults=faults)
        assert sum(stage.faults.done.values()) == faults
        return await verdict(stage)


@pytest.mark.long
async def test_an_honest_route_loses_and_doubles_nothing(tmp_path):
    kinds = [KILLED, "kill -9 NATS", "receiver: resets"]
    found = await findings(tmp_path, events=20_000, faults=3, kinds=kinds)
    assert found.clean, found
    assert (found.stored, found.derived) == (20_000, 20_000)


@pytest.mark.long
async def test_without_a_look_up_a_kill_doubles_what_the_window_has_forgotten(tmp_path):
    found = await findings(tmp_path, events=20_000, faults=2, kinds=[KILLED], control="no-look-up")
    assert found.doubled > 0


@pytest.mark.long
async def test_each_kind_of_fault_leaves_it_clean(tmp_path):
    found = await findings(tmp_path, events=100_000, faults=12)
    assert found.clean, found


async def test_the_checker_finds_what_is_lost_doubled_disordered_and_wrong(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server.url)
        await fill(server.url, 0, 6, devices=2)
        client = await nats.connect(server.url)
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig("DERIVED", subjects=["derived.>"]))
        stored = [await jetstream.get_msg("EVENTS", seq) for seq in range(1, 7)]
        # The devices take turns. Of the first, 3 stands before 2; of the second, 2 is there twice
        # and 3 is missing; and something is there that no device has sent.
        for place, data in ((0, None), (4, None), (2, None), (1, b"{}"), (3, None), (3, None)):
            each = stored[place]
            headers = {name: each.headers[name] for name in ("ce-source", "ce-id")}
            subject = f"derived.{each.subject.split('.')[2]}"
            await jetstream.publish(subject, data or each.data, headers=headers)
        await client.close()
        ids = [f"{each.headers['ce-source']} {each.headers['ce-id']}" for each in stored]
        received = [
            Received(ids[0], "a", accepted=True),
            Received(ids[1], "b", accepted=False),
            Received(ids[1], "c", accepted=True),
            Received(ids[2], "d", accepted=False),
        ]
        found = await check(
            server.url, "DERIVED", nats_rule="stored", http_rule="posted",
            posted=lambda data: data in {each.data for each in stored[:3]}, received=received,
        )  # fmt: skip
    assert found == Findings(
        stored=6, derived=6, letters=0, lost=1, doubled=1, disordered=1, wrong=1,
        http_lost=1, http_repeats=1, http_ids=1,
    )  # fmt: skip
    assert not found.clean
