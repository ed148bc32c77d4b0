"""Admission as a device meets it: slots, tickets, limits and refusals on the wire of one node."""

import asyncio
import json
import time

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.commands import tidegate
from support.gateways import (
    Way,
    client_context,
    fill_calendar,
    running_gateway,
    token_for,
    url_of,
)
from support.processes import GatewayProcess
from support.servers import nats_server
from support.waiting import eventually, within
from support.wire import knock_bytes, message, raw_connection, raw_device
from tidegate import BackoffSettings, Device

SLOW = {
    "admission__rate_per_s": 2.0,
    "admission__rate_floor_per_s": 2.0,
    "admission__burst": 1,
    "admission__park_ms": 0,
}


async def refusal(gateway, device, **options):
    """Expect a refusal; its status, headers and body."""
    with pytest.raises(InvalidStatus) as caught:
        async with raw_device(gateway, device, **options):
            pass
    response = caught.value.response
    return response.status_code, response.headers, json.loads(response.body)


async def test_a_refused_device_gets_a_slot_and_is_admitted_in_it(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **SLOW) as gateway:
        fill_calendar(gateway, 3.0)
        began = time.monotonic()
        status, headers, body = await refusal(gateway, "veh-1")
        assert (status, body["error"], body["reason"]) == (503, "admission", "rate")
        wait_ms = int(headers["Tidegate-Retry-After-Ms"])
        assert 0 < wait_ms <= 3_000
        assert int(headers["Retry-After"]) == -(-wait_ms // 1000)
        assert body["ticket"] == headers["Tidegate-Ticket"]
        assert body["retry_ms"] == wait_ms
        _, again, _ = await refusal(gateway, "veh-1", ticket=body["ticket"])
        assert int(again["Tidegate-Retry-After-Ms"]) <= wait_ms, "early: the same slot again"
        thief, _, stolen = await refusal(gateway, "veh-2", ticket=body["ticket"])
        assert thief == 503
        passed_ms = (time.monotonic() - began) * 1000
        assert stolen["retry_ms"] > wait_ms + 500 - passed_ms, "the next slot, half a second later"
        await eventually(lambda: _enters(gateway, "veh-1", body["ticket"]))
        value = gateway.metrics.value
        assert value("tidegate_tickets_total", {"outcome": "honoured"}) == 1
        assert value("tidegate_tickets_total", {"outcome": "early"}) >= 1
        assert value("tidegate_tickets_invalid_total", {"reason": "holder"}) == 1
        assert value("tidegate_refused_total", {"error": "admission", "reason": "rate"}) >= 3


async def _enters(gateway, name, ticket):
    try:
        async with raw_device(gateway, name, ticket=ticket):
            return True
    except InvalidStatus:
        return False


async def test_a_short_wait_is_parked_in_the_handshake(tmp_path, way):
    settings = {**SLOW, "admission__park_ms": 4_000, "admission__rate_per_s": 5.0}
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        fill_calendar(gateway, 2.0)
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(_talk(gateway, f"veh-{number}"))
        assert gateway.metrics.value("tidegate_knocks_parked_total", {"rank": "walk_in"}) >= 3


async def _talk(gateway, name):
    async with raw_device(gateway, name) as device:
        await device.say(message(1))
        await device.hear_ack(1)


async def test_a_knock_that_hangs_up_in_the_lot_leaves_no_trace(tmp_path, way):
    settings = {**SLOW, "admission__park_ms": 9_000}
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        fill_calendar(gateway, 8.0)
        async with raw_connection(gateway) as (_reader, writer):
            writer.write(knock_bytes(gateway, "veh-1"))
            await eventually(lambda: gateway.status()["admission"]["parked"] == 1)
        await eventually(lambda: gateway.status()["admission"]["parked"] == 0)
        await eventually(lambda: gateway.status()["connections"] == 0)


@pytest.mark.parametrize("query", ["?refusal=close", "?a=b&refusal=close"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_browser_is_refused_by_a_close_frame(tmp_path, query, tls):
    async with running_gateway(tmp_path, way=Way(tls), **SLOW) as gateway:
        fill_calendar(gateway, 60.0)
        async with connect(
            url_of(gateway) + query,
            subprotocols=["tidegate.v1", f"bearer.{token_for(gateway, 'veh-1')}"],
            proxy=None,
            ssl=client_context(gateway),
        ) as browser:
            with pytest.raises(ConnectionClosed) as caught:
                await within(browser.recv())
        assert caught.value.rcvd.code == 1013
        hint = json.loads(caught.value.rcvd.reason)
        assert set(hint) == {"retry_ms", "ticket"}
        async with connect(
            url_of(gateway) + query,
            subprotocols=["tidegate.v1", "bearer.a.b.c"],
            proxy=None,
            ssl=client_context(gateway),
        ) as forger:
            with pytest.raises(ConnectionClosed) as caught:
                await within(forger.recv())
        assert caught.value.rcvd.code == 4401


async def test_a_browser_shows_its_ticket_as_a_subprotocol(tmp_path):
    async with running_gateway(tmp_path, **SLOW) as gateway:
        fill_calendar(gateway, 3.0)
        ticket = await _refused_browser(gateway, "veh-1")
        value = gateway.metrics.value
        await _refused_browser(gateway, "veh-2", f"ticket.{ticket}")
        assert value("tidegate_tickets_invalid_total", {"reason": "holder"}) == 1
        await eventually(lambda: _browser_enters(gateway, "veh-1", f"ticket.{ticket}"))
        assert value("tidegate_tickets_total", {"outcome": "honoured"}) == 1


def _browse(gateway, name, *more):
    return connect(
        url_of(gateway) + "?refusal=close",
        subprotocols=["tidegate.v1", f"bearer.{token_for(gateway, name)}", *more],
        proxy=None,
    )


async def _refused_browser(gateway, name, *more):
    """Expect a refusal; its ticket."""
    async with _browse(gateway, name, *more) as browser:
        assert browser.subprotocol == "tidegate.v1"
        with pytest.raises(ConnectionClosed) as caught:
            await within(browser.recv())
    return json.loads(caught.value.rcvd.reason)["ticket"]


async def _browser_enters(gateway, name, *more):
    async with _browse(gateway, name, *more) as browser:
        try:
            await browser.send('{"hello":{"outbox":"b","oldest":1}}')
            return "welcome" in json.loads(await within(browser.recv()))
        except ConnectionClosed:
            return False


async def test_a_device_that_knocks_too_often_waits_and_the_wait_does_not_grow(tmp_path, way):
    settings = {"admission__device_knocks_per_s": 0.05, "admission__device_knock_burst": 2}
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        for _ in range(2):
            async with raw_device(gateway, "eager"):
                pass
        earliest, latest = [], []
        for _ in range(5):
            asked_at = time.monotonic()
            status, headers, body = await refusal(gateway, "eager")
            assert (status, body["error"]) == (429, "device_rate")
            wait_s = int(headers["Tidegate-Retry-After-Ms"]) / 1000
            earliest.append(asked_at + wait_s)
            latest.append(time.monotonic() + wait_s)
        assert max(earliest) < min(latest) + 0.1, "all of them name one moment"
        async with raw_device(gateway, "other"):
            pass  # no other device is affected


async def test_an_address_that_knocks_too_often_is_refused(tmp_path, way):
    settings = {"admission__address_knocks_per_s": 0.05, "admission__address_knock_burst": 3}
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        for number in range(3):
            async with raw_device(gateway, f"veh-{number}"):
                pass
        status, _, body = await refusal(gateway, "veh-9")
        assert (status, body["error"]) == (429, "address_rate")


async def test_forged_credentials_cost_no_more_than_their_share(tmp_path, way):
    """Checks of unknown signatures are bounded; a device that was verified before is admitted."""
    settings = {"admission__verification_share": 0.02}
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        good = token_for(gateway, "veh-1")
        async with raw_device(gateway, token=good):
            pass
        answers = set()
        began = time.monotonic()
        for number in range(400):
            forged = token_for(gateway, f"forged-{number}")[:-8] + "AAAAAAAA"
            status, _, body = await refusal(gateway, "x", token=forged)
            answers.add((status, body.get("reason")))
        assert answers == {(401, "signature"), (503, "overload")}
        spent = gateway.admission.budget.spent_s
        # The share of the time that has passed, the burst of one second, and the check in progress.
        assert spent < 0.02 * (time.monotonic() - began + 1) + 0.1
        async with raw_device(gateway, token=good) as device:
            await device.say(message(1))
            await device.hear_ack(1)


async def test_the_same_forgery_is_checked_once(tmp_path, way):
    async with running_gateway(tmp_path, way=way) as gateway:
        forged = token_for(gateway, "veh-1")[:-8] + "AAAAAAAA"
        for _ in range(20):
            status, _, body = await refusal(gateway, "x", token=forged)
            assert (status, body["reason"]) == (401, "signature")
        assert gateway.devices.keys.verifier.verifications == 1


async def test_the_reference_client_keeps_its_slot_and_is_never_early(tmp_path):
    async with running_gateway(tmp_path / "node", **SLOW) as gateway:
        fill_calendar(gateway, 2.0)
        async with Device(
            url_of(gateway),
            token_for(gateway, "veh-1"),
            outbox=tmp_path / "outbox",
            backoff=BackoffSettings(first_retry_ms=1),
        ) as device:
            await device.send("t", 1)
            await within(device.flush())
            assert (device.knocks.knocks, device.knocks.refusals) == (2, 1)
            assert 0 <= device.knocks.lateness_ms < 1_000
        assert gateway.metrics.value("tidegate_tickets_total", {"outcome": "early"}) == 0


async def test_a_stream_that_is_gone_stops_admission_and_its_return_resumes_it(tmp_path, way):
    with nats_server(tmp_path / "nats") as nats:
        settings = {
            "nats__urls": (nats.url,),
            "stream__durability": "stream",
            "admission__overload_retry_ms": 100,
        }
        async with running_gateway(tmp_path / "node", way=way, **settings) as gateway:

            def held():
                return gateway.status()["admission"]["held"]

            async with raw_device(gateway) as device:
                nats.kill()
                await eventually(held)
                status, _, body = await refusal(gateway, "veh-2")
                assert (status, body["reason"]) == (503, "overload")
                assert b"tidegate_admission_held 1.0" in gateway.metrics.exposition()[0]
                await device.say(message(1))  # a connected device stays connected
                nats.start()
                await device.hear_ack(1)
                await eventually(lambda: not held())
                async with raw_device(gateway, "veh-2"):
                    pass


async def test_tickets_outlive_a_restart(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **SLOW) as gateway:
        fill_calendar(gateway, 3.0)
        _, _, body = await refusal(gateway, "veh-1")
    async with running_gateway(tmp_path, way=way, **SLOW) as gateway:
        fill_calendar(gateway, 30.0)  # to a walk-in
        await eventually(lambda: _enters(gateway, "veh-1", body["ticket"]))
        assert gateway.metrics.value("tidegate_tickets_total", {"outcome": "honoured"}) == 1


async def test_revoking_by_hand_survives_a_restart(tmp_path):
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        ops = f"http://127.0.0.1:{gateway.ops_port}"
        done = await asyncio.to_thread(tidegate, "revoke", "--device", "veh-1", "--ops-url", ops)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "revoked on this node for 24 h"
        for wrong in ([], ["--device", "a", "--jti", "b"]):
            bad = await asyncio.to_thread(tidegate, "revoke", *wrong, "--ops-url", ops)
            assert bad.returncode == 1
            assert "--device or --jti" in bad.stderr
        gateway.signal(15)
        await gateway.ended()
        gateway.start()
        done = await asyncio.to_thread(
            tidegate, "device", "veh-1", "--url", gateway.url, "--data-dir", gateway.data_dir,
            stdin='{"type":"t","data":1}\n',
        )  # fmt: skip
        assert done.returncode == 1
        assert "revoked" in done.stderr
    finally:
        gateway.stop()


async def test_draining_by_hand_waits_until_the_node_has_stopped(tmp_path):
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        ops = f"http://127.0.0.1:{gateway.ops_port}"
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{ops}/drain", data="{}") as response:
                assert response.status == 415  # no page of a browser can do that
            async with http.post(f"{ops}/revoke", json={"until": "soon"}) as response:
                assert response.status == 400
        done = await asyncio.to_thread(tidegate, "drain", "--ops-url", ops)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "stopped"
        assert await gateway.ended() == 0
        gone = await asyncio.to_thread(tidegate, "drain", "--ops-url", ops)
        assert gone.returncode == 1
    finally:
        gateway.stop()
