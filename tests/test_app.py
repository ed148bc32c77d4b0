"""A node as a whole: takeover, expiry, renewal, TLS, commands, the ops pages, stopping."""

import asyncio
import json
import os
import signal

import aiohttp
import nats
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from gateway import development
from gateway.stream.errors import ServerError
from gateway.stream.server import nats_server
from gateway.stream.server.roles import Role, url_file
from loadtest.servers.certificates import make_certificate
from support.asking import ask_device
from support.gateways import client_context, running_gateway, token_for, url_of
from support.processes import GatewayProcess
from support.servers import stop_process
from support.stored import by_device, read_embedded
from support.waiting import eventually, within
from support.wire import message, raw_device


async def ops(gateway, path):
    url = f"http://127.0.0.1:{gateway.ops_port}{path}"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        text = await response.text()
        return response.status, json.loads(text) if path != "/metrics" else text


async def test_a_second_connection_takes_over(ways_gateway):
    gateway = ways_gateway
    async with raw_device(gateway) as first:
        await first.say(message(1))
        await first.hear_ack(1)
        async with raw_device(gateway, oldest=2) as second:
            assert await first.closed() == (
                4409,
                {"error": "taken_over", "detail": "a newer connection of this device"},
            )
            await second.say(message(2))
            await second.hear_ack(2)
    await eventually(lambda: gateway.status()["devices"] == 0)


async def test_a_takeover_in_mid_flight_stores_each_message_once(ways_gateway):
    gateway = ways_gateway
    for attempt in range(5):
        async with raw_device(gateway, outbox=f"b{attempt}") as first:
            await first.say([message(seq) for seq in range(1, 31)])
            async with raw_device(gateway, outbox=f"b{attempt}") as second:
                await second.say([message(seq) for seq in range(1, 31)])
                await second.hear_ack(30)
    stored = by_device(await read_embedded(gateway.data_dir))
    assert stored == {("veh-1", f"b{n}"): list(range(1, 31)) for n in range(5)}


async def test_an_expired_credential_ends_its_session(tmp_path, way):
    async with running_gateway(tmp_path, way=way, credentials__leeway_ms=0) as gateway:
        async with raw_device(gateway, token=token_for(gateway, "veh-1", lifetime_s=4)) as device:
            code, reason = await device.closed()
    assert (code, reason["error"]) == (4401, "credential")


async def test_a_fresh_credential_in_band_keeps_the_session(tmp_path):
    async with running_gateway(tmp_path, credentials__leeway_ms=0) as gateway:
        short = token_for(gateway, "veh-1", lifetime_s=4)
        async with raw_device(gateway, token=short) as device:
            await device.say({"credential": token_for(gateway, "veh-1", lifetime_s=6)})
            await device.say(message(1))
            await device.hear_ack(1)
            began = asyncio.get_running_loop().time()
            code, _reason = await device.closed()
            assert code == 4401
            assert asyncio.get_running_loop().time() - began > 0.5


@pytest.mark.parametrize(
    ("claims", "code", "error"),
    [({"tenant": "other"}, 1008, "credential"), ({}, 1008, "credential")],
)
async def test_a_credential_of_another_device_is_an_offence(gateway, claims, code, error):
    async with raw_device(gateway) as device:
        who = "veh-1" if claims else "veh-2"
        await device.say({"credential": token_for(gateway, who, **claims)})
        closed, reason = await device.closed()
    assert (closed, reason["error"]) == (code, error)


async def test_a_forged_credential_in_band_ends_the_session(gateway):
    async with raw_device(gateway) as device:
        await device.say({"credential": token_for(gateway, "veh-1")[:-3] + "AAA"})
        assert (await device.closed())[0] == 4401


async def test_the_ops_pages(gateway):
    assert await ops(gateway, "/healthz") == (200, {"healthy": True})
    assert await ops(gateway, "/readyz") == (200, {"ready": True})
    async with raw_device(gateway) as device:
        await device.say(message(1))
        await device.hear_ack(1)
        status, page = await ops(gateway, "/status")
        assert status == 200
        assert (page["devices"], page["state"]) == (1, "serving")
        assert page["stream"]["durability"] == "fsync"
        assert page["stream"]["strategy"] == "atomic"
        _, text = await ops(gateway, "/metrics")
    for sample in (
        "tidegate_devices 1.0",
        "tidegate_sessions_opened_total 1.0",
        "tidegate_messages_received_total 1.0",
        'tidegate_messages_settled_total{kind="single"} 1.0',
        "tidegate_ready 1.0",
        "tidegate_durability_fsync 1.0",
        "process_resident_memory_bytes",
    ):
        assert sample in text


async def test_a_node_whose_jetstream_is_gone_is_not_ready_and_keeps_its_devices(
    gateway, monkeypatch
):
    def missing():
        raise ServerError("there is none for the moment")

    async with raw_device(gateway) as device:
        server = gateway.storage.backbone.server.server
        pid = server.pid
        monkeypatch.setattr(nats_server, "find_binary", missing)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: gateway.not_ready() == "nats_disconnected")
        status, page = await ops(gateway, "/readyz")
        assert (status, page["reason"]) == (503, "nats_disconnected")
        await device.say(message(1))
        monkeypatch.undo()
        await device.hear_ack(1)
        assert server.pid != pid
        await eventually(lambda: gateway.not_ready() is None)
        # The connection may be back a moment before the restart has been seen to succeed.
        restarts = "tidegate_nats_server_restarts_total"
        await eventually(lambda: gateway.metrics.value(restarts) == 1)
    assert by_device(await read_embedded(gateway.data_dir)) == {("veh-1", "box"): [1]}


async def test_commands_reach_the_device_and_its_answer_the_requester(gateway):
    """On the embedded server, with the operators' own user."""
    operator = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())
    async with raw_device(gateway) as device:
        asking = asyncio.create_task(ask_device(operator, b'{"type":"lock","data":{"doors":4}}'))
        command = await device.hear_named("command")
        assert (command["type"], command["data"]) == ("lock", {"doors": 4})
        await device.say({"result": {"id": command["id"], "ok": True, "data": {"locked": 4}}})
        answer = json.loads((await within(asking)).data)
        assert answer == {"id": command["id"], "ok": True, "data": {"locked": 4}}
        await device.say({"result": {"id": "nobody-asked", "ok": True}})
        await eventually(
            lambda: gateway.metrics.value("tidegate_commands_total", {"outcome": "unknown"}) == 1
        )
    await operator.close()


async def test_compression_on_by_a_setting(tmp_path):
    async with running_gateway(tmp_path, compression__enabled=True) as gateway:
        async with raw_device(gateway, compression="deflate") as device:
            assert "permessage-deflate" in str(device.connection.response.headers)
            await device.say([message(seq) for seq in range(1, 20)])
            await device.hear_ack(19)
        async with raw_device(gateway, "veh-2") as plain:  # and a device that does not offer it
            await plain.say(message(1))
            await plain.hear_ack(1)


async def test_tls_and_a_new_certificate_on_sighup(tmp_path):
    files = make_certificate(tmp_path / "tls")
    options = {"tls__cert_file": str(files.cert), "tls__key_file": str(files.key)}
    async with running_gateway(tmp_path / "data", **options) as gateway:
        url = url_of(gateway).replace("ws://127.0.0.1", "wss://localhost")

        def serial(device):
            certificate = device.connection.transport.get_extra_info("ssl_object").getpeercert()
            return int(certificate["serialNumber"], 16)

        async with raw_device(gateway, url=url, ssl=files.client_context()) as old:
            assert serial(old) == files.serial
            renewed = make_certificate(tmp_path / "tls")
            gateway.lifecycle.reload()
            async with raw_device(
                gateway, "veh-2", url=url, ssl=renewed.client_context()
            ) as device:
                assert serial(device) == renewed.serial
            renewed.key.write_text("broken")
            gateway.lifecycle.reload()
            async with raw_device(gateway, "veh-3", url=url, ssl=renewed.client_context()):
                pass
            await old.say(message(1))
            await old.hear_ack(1)
        with pytest.raises((OSError, InvalidHandshake)):  # plain text to a TLS port
            await connect(url_of(gateway), proxy=None, open_timeout=5)


async def test_stopping_settles_what_was_sent_and_sends_devices_away(tmp_path, way):
    async with running_gateway(tmp_path, way=way) as gateway:
        async with raw_device(gateway, "veh-1") as busy, raw_device(gateway, "veh-2") as quiet:
            await busy.say([message(seq) for seq in range(1, 31)])
            stopping = asyncio.create_task(gateway.stop())
            goaway = await quiet.hear_named("goaway")
            assert goaway["reason"] == "drain"
            assert goaway["retry_ms"] >= 0
            assert (await quiet.closed())[0] == 1012
            acked = 0
            while "goaway" not in (frame := await busy.hear()):
                acked = frame.get("ack", acked)
            assert (await busy.closed())[0] == 1012
            await within(stopping)
            with pytest.raises(OSError, match="refused"):
                await connect(url_of(gateway), proxy=None, ssl=client_context(gateway))
    # Exactly the messages that were read before the stop are stored and acknowledged.
    assert acked in (0, 30)


async def test_sigterm_stops_in_order_and_a_second_at_once(tmp_path):
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert [event["event"] for event in map(json.loads, gateway.log.splitlines())][-1] == (
            "stopped"
        )
        gateway.start()
        nats_pid = gateway.nats_pid
        token = development.mint(gateway.data_dir, "veh-1", lifetime_s=600, claims={})
        async with connect(
            gateway.url,
            subprotocols=["tidegate.v1"],
            additional_headers={"Authorization": f"Bearer {token}"},
            proxy=None,
        ) as device:
            await device.send('{"hello":{"outbox":"b","oldest":1}}')
            await device.recv()
            stop_process(nats_pid)  # nothing will be settled
            await device.send('{"seq":1,"type":"t","data":1}')
            await _pending(gateway, 1)
            gateway.process.send_signal(signal.SIGTERM)
            await eventually(lambda: gateway.events("draining")[-1]["devices"] == 1)
            gateway.process.send_signal(signal.SIGTERM)
            assert await gateway.ended() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(nats_pid, 0)
        assert gateway.events("drain_cut_short")[-1]["unsettled"] == 1
    finally:
        gateway.stop()


async def test_a_second_gateway_on_the_data_directory_is_refused_and_the_first_unharmed(tmp_path):
    gateway, second = GatewayProcess(tmp_path), GatewayProcess(tmp_path)
    gateway.start()
    try:
        nats_pid = gateway.nats_pid
        with pytest.raises(AssertionError, match="exited with 1"):
            second.start()
        assert f"in use by process {gateway.process.pid}" in gateway.log
        assert gateway.nats_pid == nats_pid
        os.kill(nats_pid, 0)
        # After a kill, the next gateway gets the directory; the nats-server does not keep it.
        gateway.kill()
        second.start()
        assert second.nats_pid != nats_pid
    finally:
        gateway.stop()
        second.stop()


async def _pending(gateway, messages):
    async with aiohttp.ClientSession() as http:

        async def page():
            async with http.get(f"http://127.0.0.1:{gateway.ops_port}/status") as response:
                return (await response.json())["pending"]["messages"] == messages

        await eventually(page)
