"""The reference client against a real gateway: nothing is lost or stored twice, whatever breaks."""

import asyncio
import contextlib
import json
import time

import nats
import pytest
from nats.js.errors import NotFoundError

from gateway import development
from gateway.stream.server.roles import Role, url_file
from support.asking import ask_device
from support.devices import QUICK, device_of
from support.gateways import running_gateway, token_for, url_of
from support.processes import GatewayProcess
from support.socket_gateway import closed_port
from support.stored import by_device, read_embedded
from support.waiting import eventually, within
from tidegate import CredentialRefused, Device, Rejected, Unreachable


async def test_send_flush_and_acks(gateway, tmp_path):
    acks = []
    async with device_of(gateway, tmp_path, on_ack=acks.append) as device:
        seqs = await asyncio.gather(*(device.send("battery.low", {"n": n}) for n in range(500)))
        assert sorted(seqs) == list(range(1, 501))
        await within(device.flush())
        assert device.pending == 0
    assert acks == sorted(acks)
    assert acks[-1] == 500
    stored = by_device(await read_embedded(gateway.data_dir))
    assert list(stored.values()) == [list(range(1, 501))]


async def test_messages_that_were_sent_offline_are_stored_later(tmp_path):
    gateway = GatewayProcess(tmp_path)
    token = development.mint(gateway.data_dir, "veh-1", lifetime_s=600, claims={})
    async with Device(gateway.url, token, outbox=tmp_path / "box", backoff=QUICK) as device:
        await device.send("a", 1)
        assert device.pending == 1
    try:
        gateway.start()
        async with Device(gateway.url, token, outbox=tmp_path / "box", backoff=QUICK) as device:
            await device.send("a", 2)
            await within(device.flush())
        stored = await read_embedded(gateway.data_dir)
        assert [each.data for each in stored] == [b"1", b"2"]
    finally:
        gateway.stop()


@pytest.mark.parametrize(
    ("message_type", "data", "more"),
    [
        ("a b", 1, {}),
        ("", 1, {}),
        ("a.*", 1, {}),
        ("a", object(), {}),
        ("a", "x" * 70_000, {}),
        ("a", 1, {"time": "noon"}),
    ],
)
async def test_a_message_that_cannot_be_sent_is_refused_at_once(tmp_path, message_type, data, more):
    async with Device("ws://127.0.0.1:1/", "t", outbox=tmp_path / "box", backoff=QUICK) as device:
        with pytest.raises(Rejected):
            await device.send(message_type, data, **more)
        assert device.pending == 0


async def test_a_rejected_message_is_reported_and_the_others_are_stored(tmp_path):
    async with running_gateway(tmp_path / "data", limits__json_depth=4) as gateway:
        rejects = []
        async with Device(closed_port(), "t", outbox=tmp_path / "box") as device:
            # Before it has connected, the device does not know the limit of this gateway.
            first = await device.send("a", [[[[[]]]]])
            last = await device.send("a", 2)
        async with Device(
            url_of(gateway), token_for(gateway, "veh-1"), outbox=tmp_path / "box", backoff=QUICK,
            on_reject=rejects.append,
        ) as device:  # fmt: skip
            await within(device.flush())
            with pytest.raises(Rejected, match="4 levels"):
                await device.send("a", [[[[[]]]]])
            assert device.rejected == 1
        assert [(reject.seq, reject.error) for reject in rejects] == [(first, "depth")]
        assert last == first + 1
        stored = await read_embedded(gateway.data_dir)
        assert [each.data for each in stored] == [b"2"]


async def test_commands_and_answers(gateway, tmp_path):
    operator = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())
    async with device_of(gateway, tmp_path) as device:
        await within(device.connected.wait())
        asking = asyncio.create_task(ask_device(operator, b'{"type":"lock","data":{"doors":4}}'))
        command = await within(anext(device.commands()))
        assert (command.type, command.data) == ("lock", {"doors": 4})
        await device.answer(command.id, ok=True, data=[1])
        answer = json.loads((await within(asking)).data)
        assert answer == {"id": command.id, "ok": True, "data": [1]}
        with pytest.raises(Rejected):
            await device.answer("7", ok=True, data=object())
    await operator.close()


async def test_a_new_device_has_its_state_in_its_first_session(gateway, tmp_path):
    operator = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())

    async def set_state(n):
        await operator.jetstream().publish("state.default.veh-1", b'{"desired":{"n":%d}}' % n)

    await set_state(1)
    async with device_of(gateway, tmp_path, state=True) as device:
        states = device.states()
        assert (await within(anext(states))).desired == {"n": 1}
        await set_state(2)
        assert (await within(anext(states))).desired == {"n": 2}
        assert device.knocks.knocks == 1
    async with device_of(gateway, tmp_path, state=True) as device:
        assert device.desired == {"n": 2}
        await within(device.connected.wait())
        await set_state(3)
        await eventually(lambda: device.desired == {"n": 3})
    await operator.close()


async def test_a_queued_command_is_settled_in_the_first_session(gateway, tmp_path):
    operator = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())
    stream = operator.jetstream()
    ran = []

    async def queue(identity):
        entry = {"id": identity, "type": "t", "data": 1, "expires": "2999-01-01T00:00:00Z"}
        await stream.publish("commands.queue.default.veh-1", json.dumps(entry).encode())

    async def status(identity):
        subject = f"commands.status.default.veh-1.{identity}"
        with contextlib.suppress(NotFoundError):
            stored = await stream.get_last_msg("COMMANDS", subject)
            return json.loads(stored.data)["status"]

    async def is_done(identity):
        return await status(identity) == "done"

    await queue("c1")
    async with device_of(gateway, tmp_path) as device:
        device.on("t")(lambda command: ran.append(command.id))
        await eventually(lambda: is_done("c1"))
        await queue("c2")
        await eventually(lambda: is_done("c2"))
        await eventually(lambda: not device._gear.mailbox._open)
        assert device.knocks.knocks == 1
    await queue("c3")
    async with device_of(gateway, tmp_path) as device:
        device.on("t")(lambda command: ran.append(command.id))
        await eventually(lambda: is_done("c3"))
        await eventually(lambda: not device._gear.mailbox._open)
    assert ran == ["c1", "c2", "c3"]
    await operator.close()


async def test_a_refused_credential_asks_the_provider_for_another(gateway, tmp_path):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return "forged.to.ken" if refused is None else token_for(gateway, "veh-1")

    async with device_of(gateway, tmp_path, credential=provide) as device:
        await device.send("a", 1)
        await within(device.flush())
    assert asked[0] is None
    assert "malformed" in asked[1]


async def test_without_another_credential_the_device_ends_and_keeps_its_messages(gateway, tmp_path):
    async with device_of(gateway, tmp_path, credential="forged.to.ken") as device:
        await device.send("a", 1)
        with pytest.raises(CredentialRefused):
            await within(device.flush())
        assert device.pending == 1


async def test_a_path_that_is_not_the_endpoint_ends_the_device(gateway, tmp_path):
    url = url_of(gateway).replace("/v1/device", "/elsewhere")
    async with Device(url, "t", outbox=tmp_path / "box", backoff=QUICK) as device:
        await device.send("a", 1)
        with pytest.raises(Unreachable, match="not_found"):
            await within(device.flush())


async def test_a_credential_is_renewed_before_it_expires(tmp_path):
    async with running_gateway(tmp_path / "data", credentials__leeway_ms=0) as gateway:
        given = []

        async def provide(refused):
            given.append(refused)
            return token_for(gateway, "veh-1", lifetime_s=4 if len(given) == 1 else 60)

        async with device_of(gateway, tmp_path, credential=provide) as device:
            await within(device.connected.wait())
            expires_at = time.time() + 4
            await eventually(lambda: given == [None, None], "a renewal")
            await eventually(lambda: time.time() > expires_at + 0.5, "the first one's end")
            await device.send("a", 1)
            await within(device.flush())
            assert given == [None, None]
            assert gateway.metrics.value("tidegate_sessions_opened_total") == 1


async def test_a_goaway_is_followed_to_the_node_that_comes_back(tmp_path):
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    try:
        token = development.mint(gateway.data_dir, "veh-1", lifetime_s=600, claims={})
        async with Device(gateway.url, token, outbox=tmp_path / "box", backoff=QUICK) as device:
            await device.send("a", 1)
            await within(device.flush())
            gateway.stop()
            await device.send("a", 2)
            gateway.start()
            await within(device.flush())
        assert [each.data for each in await read_embedded(gateway.data_dir)] == [b"1", b"2"]
    finally:
        gateway.stop()
