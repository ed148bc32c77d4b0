"""Fault runs of redrives, short: nothing is lost or doubled, and the checker would find it."""

import random

import nats
import pytest

from loadtest.lab.redrive_checker import check
from loadtest.lab.redrive_faults import one_round
from loadtest.servers.letters import bury, make_letter_streams
from support.servers import nats_server


@pytest.mark.long
async def test_a_redrive_that_is_killed_again_and_again_sends_each_letter_once():
    kills, found = await one_round(400, 3, random.Random(3))
    assert kills.redrives >= 1
    assert kills.routes == 1
    assert found.clean, found
    assert (found.letters, found.sent, found.facts) == (400, 400, 400)


async def test_the_checker_finds_what_is_lost_doubled_reordered_and_wrong(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_letter_streams(server.url, duplicate_window_s=0.1)
        await bury(server.url, 8, devices=1)
        client = await nats.connect(server.url)
        for number, said in ((0, 1), (4, 5), (2, 3), (2, 3), (6, 99)):
            await client.jetstream().publish(
                "events.default.veh-0.battery.high",
                b'{"number":%d}' % number,
                headers={"ce-id": f"o1:{said}"},
            )
        await client.jetstream().publish(
            "alerts.default.veh-0", b'{"number":1}', headers={"ce-id": "o1:2"}
        )
        await client.close()
        found = await check(server.url)
    assert (found.letters, found.sent, found.facts) == (8, 6, 0)
    assert (found.lost, found.doubled, found.reordered, found.wrong) == (3, 1, 2, 1)
