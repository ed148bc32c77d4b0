"""A fleet whose clocks are wrong, or are set while devices wait: every device is admitted."""

import asyncio
import time

import pytest
from websockets.exceptions import InvalidStatus

from support.fleet import fleet_of, minted, node_settings, nodes, set_redis_clock
from support.gateways import running_gateway
from support.waiting import eventually
from support.wire import raw_device

SLOW = {
    "admission__rate_per_s": 4.0,
    "admission__rate_floor_per_s": 4.0,
    "admission__burst": 1,
    "admission__park_ms": 0,
    "admission__device_knocks_per_s": 1_000.0,
    "admission__device_knock_burst": 10_000,
    "admission__resume_cost": 1.0,
}
LEAD_MS = 8_000
"""More than the lead of all devices that wait below (10, at 4 a second), less than any step."""


class Crowd:
    """Devices that knock, each until it is admitted."""

    def __init__(self, tmp_path, fleet):
        self.tmp_path = tmp_path
        self.fleet = fleet
        self.told = []
        self.inside = 0

    async def enter(self, name, number):
        ticket = ""
        token = minted(self.tmp_path, name)
        while True:
            node = self.fleet[number % len(self.fleet)]
            number += 1
            try:
                async with raw_device(node, token=token, ticket=ticket, greet=False):
                    self.inside += 1
                    return
            except InvalidStatus as exc:
                response = exc.response
                assert response.status_code == 503, response.body
                retry_ms = int(response.headers["Tidegate-Retry-After-Ms"])
                self.told.append(retry_ms)
                ticket = response.headers.get("Tidegate-Ticket", "")
                await asyncio.sleep(min(retry_ms, LEAD_MS) / 1000)

    async def all_enter(self, count, between=None):
        entering = [asyncio.create_task(self.enter(f"veh-{n}", n)) for n in range(count)]
        await eventually(lambda: len(self.told) >= count // 2, "a queue")
        if between is not None:
            between()
        await asyncio.wait_for(asyncio.gather(*entering), 60)


@pytest.mark.parametrize("by_s", [-300, 30, 3_600])
async def test_when_the_clock_of_redis_is_set_devices_wait_for_their_turn_and_no_longer(
    tmp_path, servers, by_s
):
    async with nodes(tmp_path, servers, 3, **SLOW) as fleet:
        crowd = Crowd(tmp_path, fleet)
        await crowd.all_enter(10, lambda: set_redis_clock(servers, by_s))
        assert crowd.inside == 10
        assert max(crowd.told) <= LEAD_MS
        assert sum(node.metrics.value("tidegate_tickets_invalid_total") for node in fleet) == 0
        late = sum(
            node.metrics.value("tidegate_tickets_total", {"outcome": "late"}) for node in fleet
        )
        assert late == 0
        await eventually(  # the nodes have outvoted it
            lambda: all(
                fleet_of(node)["clock"]["ahead_of_redis_s"] == pytest.approx(0, abs=1)
                and not fleet_of(node)["alone"]
                for node in fleet
            )
        )


@pytest.mark.parametrize("ahead_s", [3_600, -3_600, 30])
async def test_a_node_whose_clock_is_wrong_keeps_nobody_out_and_says_so(tmp_path, servers, ahead_s):
    walls = {1: lambda: time.time() + ahead_s}
    async with nodes(tmp_path, servers, 3, walls=walls, **SLOW) as fleet:
        crowd = Crowd(tmp_path, fleet)
        await crowd.all_enter(10)
        assert max(crowd.told) <= LEAD_MS
        shown = [fleet_of(node)["clock"]["wall_ahead_s"] for node in fleet]
        assert shown == [pytest.approx(each, abs=1) for each in (0, ahead_s, 0)]
        gauge = fleet[1].metrics.value("tidegate_wall_clock_ahead_seconds")
        assert gauge == pytest.approx(ahead_s, abs=1)


@pytest.mark.parametrize("ahead_s", [3_600, -3_600])
async def test_a_node_whose_clock_is_wrong_gives_a_new_redis_no_nonsense(
    tmp_path, servers, ahead_s
):
    walls = {0: lambda: time.time() + ahead_s}
    async with nodes(tmp_path, servers, 2, walls=walls) as fleet:
        servers[1].kill()
        await eventually(lambda: all(fleet_of(node)["alone"] for node in fleet))
        servers[1].start()
        await eventually(lambda: not any(fleet_of(node)["alone"] for node in fleet))
        for number, node in enumerate(fleet):
            token = minted(tmp_path, f"veh-{number}")
            async with raw_device(node, token=token):
                assert node.status()["admission"]["lead_s"] == 0
        assert fleet_of(fleet[1])["clock"]["ahead_of_redis_s"] == pytest.approx(0, abs=1)


@pytest.mark.parametrize("ahead_s", [3_600, -3_600])
async def test_a_node_that_started_without_redis_takes_its_time_and_its_sessions_stay(
    tmp_path, servers, ahead_s
):
    """Its clock was wrong when it made its fences; the newest connection still wins afterwards."""
    token = minted(tmp_path, "veh-1")
    servers[1].kill()
    settings = node_settings(tmp_path, servers)
    wrong = running_gateway(tmp_path / "node-0", wall=lambda: time.time() + ahead_s, **settings)
    async with wrong as one, running_gateway(tmp_path / "node-1", **settings) as two:
        fleet = [one, two]
        assert fleet_of(one)["alone"]
        async with raw_device(one, token=token) as first:
            servers[1].start()
            await eventually(lambda: not any(fleet_of(node)["alone"] for node in fleet))
            async with raw_device(two, token=token) as second:
                assert (await first.closed())[0] == 4409
                async with raw_device(one, token=token) as third:
                    assert (await second.closed())[0] == 4409
                    await third.say({"seq": 1, "type": "t", "data": 1})
                    await third.hear_ack(1)
