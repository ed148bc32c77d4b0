"""What hostile or broken devices send: each gets the error of the contract, nobody else notices."""

import asyncio
import contextlib
import json
import re
import struct

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.gateways import running_gateway, token_for
from support.stored import read_embedded
from support.waiting import eventually, within
from support.wire import message, raw_device


@pytest.fixture
def node(gateway):
    return gateway


OFFENCES = [
    (message(2), 1008, "gap"),
    ([message(1), message(3)], 1008, "gap"),
    ([message(seq) for seq in range(1, 34)], 1008, "credit"),
    ("{", 1007, "json"),
    ('{"seq":1,"type":"t","data":"\x00"}', 1007, "json"),
    ("[" * 50_000, 1008, "frame"),
    ("{}", 1008, "frame"),
    ([], 1008, "frame"),
    ('{"seq":"1","type":"t","data":1}', 1008, "frame"),
    ('{"seq":1e400,"type":"t","data":1}', 1008, "frame"),
    ({"hello": {"outbox": "a.b", "oldest": 1}}, 1008, "hello"),
    ({"ack": 5}, 1008, "frame"),
    ({"result": {"id": "x" * 100, "ok": True}}, 1008, "result"),
    ("x" * 262_145, 1009, "size"),
]


@pytest.mark.parametrize(("frame", "code", "error"), OFFENCES, ids=range(len(OFFENCES)))
async def test_each_offence_is_named_counted_and_touches_nobody_else(node, frame, code, error):
    async with raw_device(node, "bystander", outbox="b") as bystander:
        async with raw_device(node, "hostile") as hostile:
            with contextlib.suppress(Exception):
                await hostile.say(frame)
            closed, reason = await hostile.closed()
        assert closed == code
        assert reason["error"] == error
        await bystander.say(message(1))
        await bystander.hear_ack(1)
    # The end of a connection can wait for its slice of the loop.
    await eventually(
        lambda: node.metrics.value("tidegate_sessions_closed_total", {"cause": error}) == 1
    )


@pytest.mark.parametrize(
    ("data", "error", "original_bytes"),
    [
        (json.dumps("x" * 65_535), "too_large", 65_565),
        (r'"\ud800"', "surrogate", 0),
        (r'{"a":"\udc00"}', "surrogate", 0),
    ],
)
async def test_data_that_cannot_be_stored_is_rejected_and_the_rest_flows(
    node, data, error, original_bytes
):
    async with raw_device(node) as device:
        text = f'{{"seq":1,"type":"t","data":{data}}}'
        await device.say(f'[{text},{{"seq":2,"type":"t","data":2}}]')
        assert (await device.hear_named("reject"))["error"] == error
        await device.hear_ack(2)
    assert [stored.data for stored in await read_embedded(node.data_dir)] == [b"2"]
    (letter,) = await read_embedded(node.data_dir, "DEADLETTERS")
    assert letter.headers["Tidegate-Error"] == error
    assert letter.data == text.encode()[:4_096]
    assert int(letter.headers.get("Tidegate-Truncated", 0)) == original_bytes


async def test_binary_is_not_spoken_here(node):
    async with raw_device(node) as device:
        await device.connection.send(b"\x00")
        assert (await device.closed())[0] == 1003


async def test_invalid_utf8(node):
    async with raw_device(node) as device:
        await device.connection.send(b'{"seq":1,"type":"t","data":"\xff"}', text=True)
        code, reason = await device.closed()
    assert (code, reason["error"]) == (1007, "utf8")


HOSTILE_NAMES = ["a.b", "*", ">", "a b", "ä", "a\r\nPUB x", "a\x00", "$JS.API", "", "x" * 65]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
async def test_no_hostile_name_reaches_a_subject_a_header_or_a_label(node, name):
    async with raw_device(node, greet=False) as device:
        await device.say({"hello": {"outbox": name, "oldest": 1}})
        code, reason = await device.closed()
        assert (code, reason["error"]) == (1008, "hello")
    # A type is no offence but a dead letter: its device could never get past it.
    async with raw_device(node, "typed", outbox="t") as device:
        await device.say(message(1, message_type=f"{name}." if name == "a.b" else name))
        assert (await device.hear_named("reject"))["error"] == "type"
    subjects = {stored.subject for stored in await read_embedded(node.data_dir)}
    assert all(subject.startswith("events.default.") for subject in subjects)
    body, _ = node.metrics.exposition()
    assert b"PUB x" not in body
    assert "ä".encode() not in body


async def _refused(node, headers=None, path="/v1/device", subprotocols=("tidegate.v1",)):
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            f"ws://127.0.0.1:{node.port}{path}",
            subprotocols=list(subprotocols) or None,
            additional_headers=headers or {},
            proxy=None,
        ):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body)


async def test_refusals_of_the_contract(node):
    good = {"Authorization": f"Bearer {token_for(node, 'veh-1')}"}
    assert (await _refused(node))[1] == {
        "error": "credential",
        "reason": "missing",
        "detail": "missing",
    }
    status, body = await _refused(node, {"Authorization": "Bearer a.b.c"})
    assert (status, body["error"], body["reason"]) == (401, "credential", "malformed")
    status, body = await _refused(node, {"Authorization": "Basic dTpw"})
    assert (status, body["reason"]) == (401, "malformed")
    status, body = await _refused(node, good, path="/v1/devices")
    assert (status, body["error"]) == (404, "not_found")
    status, body = await _refused(node, good, subprotocols=())
    assert (status, body["error"], body["reason"]) == (400, "bad_request", "subprotocol")
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{node.port}/v1/device"
        async with http.get(url, headers=good) as response:
            assert response.status == 426
            assert (await response.json())["error"] == "upgrade_required"
    for reason in ("missing", "malformed"):
        labels = {"error": "credential", "reason": reason}
        assert node.metrics.value("tidegate_refused_total", labels) >= 1


async def test_a_full_node_says_when_to_come_back(tmp_path):
    async with running_gateway(tmp_path, server__connections_max=1) as node, raw_device(node):
        good = {"Authorization": f"Bearer {token_for(node, 'veh-2')}"}
        status, body = await _refused(node, good)
        assert (status, body["error"], body["reason"]) == (503, "admission", "capacity")
        assert body["retry_ms"] >= 1_000


async def test_who_never_says_hello_is_sent_away(tmp_path):
    async with running_gateway(tmp_path, limits__hello_timeout_ms=50) as node:
        async with raw_device(node, greet=False) as device:
            code, reason = await device.closed()
    assert (code, reason["error"]) == (1008, "hello")


async def test_a_thousand_half_handshakes_leave_a_device_undisturbed(tmp_path):
    async with running_gateway(tmp_path, limits__head_timeout_ms=2_000) as node:
        async with raw_device(node) as device:
            writers = []
            for _ in range(1_000):
                _reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
                writer.write(b"GET /v1/device HT")
                writers.append(writer)
            await device.say(message(1))
            await device.hear_ack(1)
            await eventually(
                lambda: (
                    node.metrics.value(
                        "tidegate_refused_total",
                        {"error": "bad_request", "reason": "head_timeout"},
                    )
                    == 1_000
                )
            )
            for writer in writers:
                writer.close()
            await eventually(lambda: node.status()["connections"] == 1)


async def test_frames_cut_off_in_the_middle_store_nothing_partial(tmp_path):
    async with running_gateway(tmp_path) as node:
        async with raw_device(node) as device:
            frame = json.dumps([message(1), message(2)]).encode()
            head = b"\x81" + bytes([128 | 126]) + struct.pack("!H", len(frame)) + bytes(4)
            device.connection.transport.write(head + frame[: len(frame) // 2])
            device.connection.transport.abort()
        await eventually(lambda: node.status()["devices"] == 0)
        assert await read_embedded(node.data_dir) == []
        async with raw_device(node) as again:
            await again.say([message(1), message(2)])
            await within(again.hear_ack(2))


NASTY = [
    ".", "*", ">", " ", "\t", "\r\n", "\x00", "\x7f", "\u2028", "ä", "＊", "𝕏", "%2e", "..", "/",
    "\\", ":", "'", '"', "{", "}", "$", "&", "\r\nNats-Msg-Id: x",
    "\r\nPUB events.default.victim.t 1\r\nx",
]  # fmt: skip
HOSTILE = [
    *NASTY,
    *(f"victim{piece}" for piece in NASTY),
    *(f"{piece}victim" for piece in NASTY),
    *(f"vic{piece}tim" for piece in NASTY),
    "", "x" * 65, "default:victim:box:1", "$JS.API.STREAM.DELETE.EVENTS", "_INBOX.>",
]  # fmt: skip


async def test_two_hundred_hostile_ids_types_and_payloads_touch_nobody_else(node):
    """Ids and outboxes are refused, types and payloads are dead letters or a close; the victim's
    messages, their order and their duplicate detection are as if nobody had been there."""
    payloads = [
        "1e999999", '{"a":' * 40 + "1" + "}" * 40, r'"\ud800"', "NaN", "[1,]",
        '"' + "x" * 66_000,
    ]  # fmt: skip
    assert 3 * len(HOSTILE) + len(payloads) >= 300
    async with raw_device(node, "victim") as victim:
        await victim.say(message(1))
        await victim.hear_ack(1)
        for number, name in enumerate(HOSTILE):
            status, body = await _refused(
                node, {"Authorization": f"Bearer {token_for(node, name)}"}
            )
            assert (status, body["error"]) == (401, "credential"), ascii(name)
            async with raw_device(node, f"mallory-a{number}", greet=False) as device:
                await device.say({"hello": {"outbox": name, "oldest": 1}})
                assert (await device.closed())[0] == 1008
            async with raw_device(node, f"mallory-b{number}") as device:
                # One token of letters and dots is a type; these all have something that is not.
                await device.say(message(1, message_type=f"t{name}#"))
                assert (await device.hear_named("reject"))["error"] == "type"
        for number, text in enumerate(payloads):
            async with raw_device(node, f"mallory-c{number}") as device:
                await device.say(f'{{"seq":1,"type":"t","data":{text}}}')
                with contextlib.suppress(Exception):
                    await device.hear()
        await victim.say(message(2))
        await victim.hear_ack(2)
        assert node.metrics.value("tidegate_messages_duplicate_total") == 0
    stored = await read_embedded(node.data_dir)
    assert [m.subject for m in stored if ".victim." in m.subject] == [
        "events.default.victim.battery.low"
    ] * 2
    others = [m.subject for m in stored if ".victim." not in m.subject]
    assert all(re.fullmatch(r"events\.default\.mallory-c\d\.t", subject) for subject in others)
