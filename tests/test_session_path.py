"""The main job, from device to stream and back, with a client this project did not write."""

import json

import aiohttp

from support.gateways import token_for, url_of
from support.stored import read_embedded
from support.wire import message, raw_device


async def test_a_message_is_stored_as_the_contract_says_and_then_acknowledged(gateway):
    async with raw_device(gateway, "veh-1") as device:
        assert device.welcome["credit"] == 32
        assert device.welcome["max_message_bytes"] == 65_536
        assert device.welcome["resume"] == {"outbox": "box", "seq": 0}
        assert device.welcome["keepalive_ms"] == 30_000
        assert device.welcome["max_frame_bytes"] == 262_144
        assert device.welcome["max_messages_per_frame"] == 1_000
        assert device.welcome["max_depth"] == 32
        assert device.welcome["features"] == ["outboxes", "state", "receipts"]
        # Digits and spacing of `data` are the device's own.
        await device.say(
            '{"seq":1,"type":"battery.low","data":{"soc": 7.00},"time":"2026-11-23T10:00:00Z"}'
        )
        assert await device.hear() == {"ack": 1, "credit": 33}
    (stored,) = await read_embedded(gateway.data_dir)
    assert stored.subject == "events.default.veh-1.battery.low"
    assert stored.data == b'{"soc": 7.00}'
    assert stored.headers == {
        "Nats-Msg-Id": "default:veh-1:box:1",
        "Nats-Expected-Stream": "EVENTS",
        "ce-specversion": "1.0",
        "ce-id": "box:1",
        "ce-source": "tidegate:default/veh-1",
        "ce-type": "battery.low",
        "ce-time": "2026-11-23T10:00:00Z",
    }


async def test_arrays_keep_their_order_and_are_acknowledged_cumulatively(gateway):
    async with raw_device(gateway) as device:
        await device.say([message(seq) for seq in range(1, 31)])
        await device.hear_ack(30)
    assert [each.seq for each in await read_embedded(gateway.data_dir)] == list(range(1, 31))


async def test_aiohttp_speaks_it_too_with_the_credential_as_a_subprotocol(gateway):
    bearer = f"bearer.{token_for(gateway, 'veh-2')}"
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url_of(gateway), protocols=["tidegate.v1", bearer]) as socket,
    ):
        assert socket.protocol == "tidegate.v1"
        await socket.send_json({"hello": {"outbox": "box", "oldest": 5}})
        assert (await socket.receive_json())["welcome"]["resume"]["seq"] == 4
        await socket.send_json(message(5))
        assert (await socket.receive_json())["ack"] == 5
        await socket.close()
    (stored,) = await read_embedded(gateway.data_dir)
    assert stored.seq == 5


async def test_a_message_sent_again_is_acknowledged_and_stored_once(gateway):
    for _ in range(3):
        async with raw_device(gateway) as device:
            await device.say([message(1), message(2)])
            await device.hear_ack(2)
    assert [each.seq for each in await read_embedded(gateway.data_dir)] == [1, 2]


async def test_what_cannot_be_an_event_goes_to_the_dead_letters_and_is_settled(gateway):
    deep = "[" * 40 + "]" * 40
    async with raw_device(gateway) as device:
        await device.say(
            '[{"seq":1,"type":"ok","data":1},'
            '{"seq":2,"type":"no spaces","data":{"a": 1}},'
            '{"seq":3,"type":"t","data":1,"time":"yesterday"},'
            '{"seq":4,"type":"t","data":1,"extra":true},'
            f'{{"seq":5,"type":"t","data":{deep}}},'
            '{"seq":6,"type":"ok","data":2}]'
        )
        rejects = {}
        while True:
            frame = await device.hear()
            if "reject" in frame:
                rejects[frame["reject"]["seq"]] = frame["reject"]["error"]
            elif frame["ack"] == 6:
                break
    assert rejects == {2: "type", 3: "time", 4: "schema", 5: "depth"}
    assert [each.seq for each in await read_embedded(gateway.data_dir)] == [1, 6]
    dead = await read_embedded(gateway.data_dir, "DEADLETTERS")
    assert [(each.subject, each.headers["Tidegate-Error"]) for each in dead] == [
        ("deadletters.default.veh-1", error) for error in ("type", "time", "schema", "depth")
    ]
    assert dead[0].data == b'{"seq":2,"type":"no spaces","data":{"a": 1}}'
    assert json.loads(dead[2].data)["extra"] is True
    assert gateway.metrics.value("tidegate_dead_letters_total", {"error": "depth"}) == 1


async def test_credit_grows_with_acks_and_an_overrun_is_an_offence(gateway):
    async with raw_device(gateway) as device:
        await device.say([message(seq) for seq in range(1, 33)])
        while (frame := await device.hear())["ack"] < 32:
            pass
        assert frame["credit"] == 64
        await device.say([message(seq) for seq in range(33, 33 + 65)])
        code, reason = await device.closed()
    assert (code, reason["error"]) == (1008, "credit")
    assert len(await read_embedded(gateway.data_dir)) == 32


async def test_a_session_drains_several_outboxes_one_after_the_other(gateway):
    async with raw_device(gateway, outbox="old", oldest=3) as device:
        await device.say([message(3), message(4)])
        await device.hear_ack(4)
        await device.say({"hello": {"outbox": "new", "oldest": 1, "age_ms": 0, "sent": 0}})
        assert await device.hear() == {"resume": {"outbox": "new", "seq": 0}, "credit": 32}
        await device.say([message(1), message(2)])
        await device.hear_ack(2)
    stored = [each.headers["Nats-Msg-Id"] for each in await read_embedded(gateway.data_dir)]
    assert stored == [f"default:veh-1:{place}" for place in ("old:3", "old:4", "new:1", "new:2")]
