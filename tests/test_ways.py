"""Knocks over plain TCP and TLS, with the credential in a header or in a subprotocol."""

import asyncio
import contextlib
import json
import re
import struct
from collections import Counter

import pytest
from websockets.exceptions import InvalidStatus

from gateway.node.stream.backbone import Backbone
from support.gateways import fill_calendar, listening_gateway, running_gateway
from support.waiting import eventually, within
from support.wire import knock_bytes, message, raw_connection, raw_device

HELLO = '{"hello":{"outbox":"b","oldest":1}}'
SLOW = {
    "admission__rate_per_s": 2.0,
    "admission__rate_floor_per_s": 2.0,
    "admission__burst": 1,
}
PARKING = {"admission__burst": 1, "admission__park_ms": 9_000}
LEAD_S = 8.0
"""Of the next free slot: a knock until then is parked, however slow this machine is."""


async def answer(reader):
    """Status and JSON body of an HTTP answer."""
    head = (await within(reader.readuntil(b"\r\n\r\n"))).decode()
    status = int(head.split(" ", 2)[1])
    sizes = [line for line in head.split("\r\n") if line.startswith("Content-Length: ")]
    body = await within(reader.readexactly(int(sizes[0].split(" ")[1]))) if sizes else b"{}"
    return status, json.loads(body)


async def test_each_of_many_knocks_at_once_is_answered(tmp_path, way):
    """Cases F1 and F2: parked knocks that the full parser decides on were never answered."""
    async with running_gateway(tmp_path, way=way, **PARKING) as gateway:
        outcomes = Counter()
        # The next free slot is some seconds ahead: knocks until then are parked.
        fill_calendar(gateway, 5.0)

        async def knock(name):
            async with raw_device(gateway, name) as device:
                await device.say(message(1))
                await device.hear_ack(1)
                outcomes["acked"] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(knock(f"veh-{number}"))
        parked = gateway.metrics.value("tidegate_knocks_parked_total", {"rank": "walk_in"})
        assert outcomes == {"acked": 60}
        assert parked > 20
        assert gateway.status()["admission"]["parked"] == 0


async def test_bytes_before_the_answer_are_an_offence_and_free_the_place(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **PARKING) as gateway:
        fill_calendar(gateway, LEAD_S)
        async with raw_connection(gateway) as (reader, writer):
            writer.write(knock_bytes(gateway, "hasty"))
            await eventually(lambda: gateway.status()["admission"]["parked"] == 1)
            writer.write(b"x" * 1_000)
            status, body = await answer(reader)
            assert (status, body["reason"]) == (400, "early")
        await eventually(lambda: gateway.status()["admission"]["parked"] == 0)
        await eventually(lambda: gateway.status()["connections"] == 0)


async def test_a_frame_behind_a_knock_that_must_wait_is_an_offence(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **PARKING) as gateway:
        fill_calendar(gateway, LEAD_S)
        async with raw_connection(gateway) as (reader, writer):
            writer.write(knock_bytes(gateway, "hasty") + b"\x81\x80\x00\x00\x00\x00")
            status, body = await answer(reader)
            assert (status, body["reason"]) == (400, "early")
        await eventually(lambda: gateway.status()["admission"]["parked"] == 0)


async def test_a_newer_knock_of_a_parked_device_takes_its_place(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **PARKING) as gateway:
        fill_calendar(gateway, 3.0)
        async with raw_connection(gateway) as (old, writer):
            writer.write(knock_bytes(gateway, "veh-1"))
            await eventually(lambda: gateway.status()["admission"]["parked"] == 1)
            async with raw_connection(gateway) as (new, newer_writer):
                newer_writer.write(knock_bytes(gateway, "veh-1"))
                status, body = await answer(old)
                assert (status, body["reason"]) == (503, "rate")
                assert gateway.status()["admission"]["parked"] == 1
                assert (await answer(new))[0] == 101


async def test_a_stop_answers_parked_knocks(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **PARKING) as gateway:
        fill_calendar(gateway, LEAD_S)
        async with raw_connection(gateway) as (reader, writer):
            writer.write(knock_bytes(gateway, "veh-1"))
            await eventually(lambda: gateway.status()["admission"]["parked"] == 1)
            stopping = asyncio.create_task(gateway.stop())
            status, body = await answer(reader)
            assert (status, body["reason"]) == (503, "draining")
            await within(stopping)


async def test_a_hold_answers_parked_knocks(tmp_path, way):
    async with running_gateway(tmp_path, way=way, **PARKING) as gateway:
        fill_calendar(gateway, LEAD_S)
        async with raw_connection(gateway) as (reader, writer):
            writer.write(knock_bytes(gateway, "veh-1"))
            await eventually(lambda: gateway.status()["admission"]["parked"] == 1)
            gateway.devices.gate.hold()
            status, body = await answer(reader)
            assert (status, body["reason"]) == (503, "overload")


@pytest.mark.parametrize("silent", [True, False])
async def test_anonymous_connections_take_no_room_of_devices(tmp_path, way, silent):
    """Case D2: silent sockets filled `connections_max`. Now the oldest silent one is dropped."""
    begun = b"\x16\x03\x01\x02\x00\x01" if way.tls else b"GET /v1/device HTT"
    settings = {"server__connections_max": 2, "server__anonymous_max": 5}
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        async with raw_device(gateway, "first") as first, contextlib.AsyncExitStack() as stack:
            strangers = []
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                stack.callback(writer.transport.abort)
                writer.write(b"" if silent else begun)
                strangers.append((reader, writer))
            crowded = {"error": "anonymous", "reason": "crowded"}
            refused = gateway.metrics.value
            await eventually(lambda: refused("tidegate_refused_total", crowded) == 15)
            for reader, _writer in strangers[:15]:
                with contextlib.suppress(ConnectionError):
                    assert await within(reader.read()) == b""
            async with raw_device(gateway, "second") as second:
                for device in (first, second):
                    await device.say(message(1))
                    await device.hear_ack(1)
                with pytest.raises(InvalidStatus) as caught:
                    async with raw_device(gateway, "third"):
                        pass
                assert caught.value.response.status_code == 503
        await eventually(lambda: gateway.status()["connections"] == 0)


TICKETS = ['a","retry_ms":1,"x":"b', "A" * 42, "\xff\xfe", "A" * 6_000, "%s%s", "\t"]


@pytest.mark.parametrize("query", ["", "?refusal=close"])
async def test_no_ticket_comes_back_as_it_was_sent(tmp_path, way, query, monkeypatch):
    """Case A1: in a hold, the refusal carried whatever the device had sent as its ticket."""
    # The node itself must hold admission: it would release a hold that the test sets.
    monkeypatch.setattr(Backbone, "trouble", property(lambda _self: "stream"))
    async with listening_gateway(tmp_path, way=way, **SLOW) as gateway:
        await eventually(lambda: gateway.status()["admission"]["held"])
        for number, ticket in enumerate(TICKETS):
            async with raw_connection(gateway) as (reader, writer):
                knock = knock_bytes(
                    gateway, f"veh-{number}", ticket=ticket, path=f"/v1/device{query}"
                )
                writer.write(knock)
                raw = await within(reader.read(65_536))
                assert ticket.strip().encode("latin-1") not in raw or not ticket.strip()
                head, _, body = raw.partition(b"\r\n\r\n")
                if query:
                    assert head.startswith(b"HTTP/1.1 101")
                    body = body or await within(reader.read(65_536))
                    assert struct.unpack("!H", body[2:4]) == (1013,)
                    hint = json.loads(body[4:])
                else:
                    assert head.startswith(b"HTTP/1.1 503")
                    hint = json.loads(body)
                    assert hint.pop("error") == "admission"
                    assert hint.pop("reason") == "overload"
                assert set(hint) == {"retry_ms", "ticket"}
                assert re.fullmatch(r"[A-Za-z0-9_-]{42}", hint["ticket"])
                assert hint["ticket"] != ticket


TARGETS = ["//[", "http://[", "*", "/v1/device#x", "/%00", "http://", "://", "/v1/device/", "?"]


async def test_a_target_that_cannot_be_parsed_is_not_found(ways_gateway, capfd):
    """Case A2: a target that `urlsplit` refuses caused a traceback, and got no answer."""
    for target in TARGETS:
        async with raw_connection(ways_gateway) as (reader, writer):
            writer.write(knock_bytes(ways_gateway, "veh-1", path=target))
            assert (await answer(reader))[0] == 404, target
    assert "Traceback" not in capfd.readouterr().err
