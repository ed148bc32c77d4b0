"""Demand flows upstream: holds, credit after a hold, and resuming after a long absence."""

import asyncio
import contextlib
import json

import pytest
from nats import connect

from gateway.stream.server.roles import Role, url_file
from support.gateways import running_gateway, token_for, url_of
from support.servers import nats_server
from support.stored import by_device, read_embedded, read_stream
from support.waiting import eventually, within
from support.wire import message, raw_device
from tidegate import BackoffSettings, Device

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)


@contextlib.asynccontextmanager
async def over_own_nats(tmp_path, **settings):
    with nats_server(tmp_path / "nats") as nats:
        options = {
            "nats__urls": (nats.url,),
            "stream__durability": "stream",
            "publish__hold_after_ms": 200,
            "publish__ack_timeout_ms": 500,
            **settings,
        }
        async with running_gateway(tmp_path / "node", **options) as gateway:
            yield nats, gateway


def held(gateway):
    return gateway.storage.hold.reason


async def test_a_silent_stream_holds_devices_and_never_disconnects_them(tmp_path, way):
    async with over_own_nats(tmp_path, way=way, session__release_per_s=50) as (nats, gateway):
        async with contextlib.AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(raw_device(gateway, f"veh-{n}")) for n in range(10)
            ]
            nats.pause()
            await devices[0].say([message(seq) for seq in range(1, 33)])
            for device in devices:
                assert await device.hear_named("hold") == {"reason": "stream"}
            assert gateway.not_ready() == "stream_slow" or gateway.not_ready().startswith("stream_")
            assert b"tidegate_held 1.0" in gateway.metrics.exposition()[0]
            for device in devices[1:]:
                await device.say(message(1))  # granted before: taken
            nats.go_on()
            for device, sent in zip(devices, [32] + [1] * 9, strict=True):
                frame = await device.hear()
                while frame.get("credit", 0) == 0 or frame["ack"] + frame["credit"] <= sent:
                    frame = await device.hear()
            await devices[0].say(message(33))
            await devices[0].hear_ack(33)
            assert gateway.metrics.value("tidegate_sessions_closed_total") == 0
        assert len(await read_stream(nats.url)) == 33 + 9


async def test_a_held_reference_client_stops_sending_and_loses_nothing(tmp_path):
    async with over_own_nats(tmp_path) as (nats, gateway):
        async with Device(
            url_of(gateway), token_for(gateway, "veh-1"), outbox=tmp_path / "o", backoff=QUICK
        ) as device:
            await device.send("t", 0)
            await within(device.flush())
            nats.pause()
            await device.send("t", 1)
            await eventually(lambda: held(gateway))
            for n in range(2, 300):
                await device.send("t", n)
            assert device.pending > 200
            assert gateway.status()["pending"]["messages"] <= 64
            nats.go_on()
            await within(device.flush())
            assert device.knocks.knocks == 1
        stored = by_device(await read_stream(nats.url))
        assert list(stored.values()) == [list(range(1, 301))]


async def test_a_device_that_connects_in_a_hold_is_told(tmp_path):
    async with over_own_nats(tmp_path) as (nats, gateway):
        # The late one was let in just before.
        async with (
            raw_device(gateway) as device,
            raw_device(gateway, "veh-2", greet=False) as late,
        ):
            nats.pause()
            await device.say(message(1))
            await device.hear_named("hold")
            await late.greet()
            assert await late.hear_named("hold") == {"reason": "stream"}
            nats.go_on()
            assert (await late.hear())["credit"] > 0


async def test_a_full_store_holds_and_room_resumes(tmp_path):
    settings = {"stream__events__max_bytes": 20_000}
    async with running_gateway(tmp_path, publish__retry_ms=20, **settings) as gateway:
        async with raw_device(gateway) as device:
            seq = 0
            while not held(gateway):
                if device_credit(device, seq):
                    seq += 1
                    await device.say({"seq": seq, "type": "t", "data": "x" * 2_000})
                await asyncio.sleep(0.02)
            await eventually(lambda: gateway.not_ready() == "stream_limits")
            operator = await connect(url_file(tmp_path, Role.OPERATORS).read_text().strip())
            config = (await operator.jetstream().stream_info("EVENTS")).config
            config.max_bytes = 10**7
            await operator.jetstream().update_stream(config)
            await operator.close()
            await device.hear_ack(seq)
            await eventually(lambda: gateway.not_ready() is None)
    assert gateway.metrics.value("tidegate_publish_retried_total", {"reason": "limits"}) > 0


def device_credit(device, seq):
    return seq < device.welcome["credit"]


async def test_a_device_back_after_the_duplicate_window_stores_nothing_twice(tmp_path):
    """The acks were lost with the connection, and JetStream has forgotten the ids."""
    async with running_gateway(tmp_path, stream__duplicate_window_s=1) as gateway:
        async with raw_device(gateway) as device:
            await device.say([message(seq) for seq in range(1, 6)])
            await device.hear_ack(5)
            await device.say(message(6, message_type="not ok"))
            await device.hear_ack(6)
        async with raw_device(gateway, greet=False) as device:
            await device.say({"hello": {"outbox": "box", "oldest": 1, "age_ms": 600_000}})
            welcome = await device.hear_named("welcome")
            assert welcome["resume"] == {"outbox": "box", "seq": 6}
            await device.say(message(7))
            await device.hear_ack(7)
        async with raw_device(gateway, greet=False) as other:  # an outbox the stream never saw
            await other.say({"hello": {"outbox": "new", "oldest": 1, "age_ms": 600_000}})
            assert (await other.hear_named("welcome"))["resume"] == {"outbox": "new", "seq": 0}
        # Its first hello too: this node had not seen it before.
        assert gateway.metrics.value("tidegate_resume_lookups_total") == 3
    stored = by_device(await read_embedded_again(tmp_path))
    assert stored == {("veh-1", "box"): [1, 2, 3, 4, 5, 7]}


async def read_embedded_again(tmp_path):
    async with running_gateway(tmp_path, stream__duplicate_window_s=1) as gateway:
        return await read_embedded(gateway.data_dir)


async def test_a_quick_return_is_not_looked_up(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        for oldest, lookups in ((1, 1), (1, 1), (2, 1)):
            async with raw_device(gateway, oldest=oldest) as device:
                if oldest == 1:
                    await device.say(message(1))
                    await device.hear_ack(1)
            assert gateway.metrics.value("tidegate_resume_lookups_total") == lookups
        stored = by_device(await read_embedded(gateway.data_dir))
    assert list(stored.values()) == [[1]]


async def test_a_device_that_says_it_sent_nothing_is_not_looked_up(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        async with raw_device(gateway, greet=False) as device:
            hello = {"outbox": "box", "oldest": 5, "age_ms": 600_000, "sent": 4}
            await device.say({"hello": hello})
            assert (await device.hear_named("welcome"))["resume"]["seq"] == 4
            await device.say(message(5))
            await device.hear_ack(5)
        assert gateway.metrics.value("tidegate_resume_lookups_total") == 0


async def test_two_outboxes_of_a_device_are_not_taken_for_each_other(tmp_path):
    """Both come back after the duplicate window without their acks; one clock says 1970."""
    async with running_gateway(tmp_path, stream__duplicate_window_s=1) as gateway:
        for outbox, last in (("A", 3), ("B", 2)):
            async with raw_device(gateway, greet=False) as device:
                await device.say({"hello": {"outbox": outbox, "oldest": 1}})
                await device.hear_named("welcome")
                await device.say([message(seq) for seq in range(1, last + 1)])
                await device.hear_ack(last)
        await eventually_forgotten(gateway)
        for outbox, last in (("A", 3), ("B", 2)):
            async with raw_device(gateway, greet=False) as device:
                await device.say({"hello": {"outbox": outbox, "oldest": 1, "age_ms": 0}})
                welcome = await device.hear_named("welcome")
                assert welcome["resume"] == {"outbox": outbox, "seq": last}
                await device.say(message(last + 1))
                await device.hear_ack(last + 1)
        stored = by_device(await read_embedded(gateway.data_dir))
    assert sorted(stored.values()) == [[1, 2, 3], [1, 2, 3, 4]]


async def eventually_forgotten(gateway):
    """Wait until the duplicate window of one second is over by the server's clock."""
    began = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() > began + 1.2)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("durability", ["fsync", "stream"])
async def test_a_seq_given_twice_is_a_dead_letter_and_not_acknowledged_as_known(
    tmp_path, durability, batch
):
    """An older copy of the outbox sends other messages under the same id and seqs."""
    async with running_gateway(tmp_path, stream__durability=durability) as gateway:
        for value in ("first", "second"):
            async with raw_device(gateway) as device:
                messages = [message(seq, data=[value, seq]) for seq in (1, 2, 3)]
                for frame in [messages] if batch else messages:
                    await device.say(frame)
                for seq in (1, 2, 3) if value == "second" else ():
                    reject = await device.hear_named("reject")
                    assert (reject["seq"], reject["error"]) == (seq, "seq_reused")
                await device.hear_ack(3)
            async with raw_device(gateway, oldest=4):
                pass
        events = await read_embedded(gateway.data_dir)
        letters = await read_embedded(gateway.data_dir, "DEADLETTERS")
    assert [json.loads(each.data) for each in events] == [["first", seq] for seq in (1, 2, 3)]
    assert [json.loads(each.data)["data"] for each in letters] == [
        ["second", seq] for seq in (1, 2, 3)
    ]


@pytest.mark.parametrize("chatty", [1, 3])
async def test_a_chatty_device_does_not_keep_quiet_ones_waiting(tmp_path, chatty):
    async with running_gateway(tmp_path) as gateway:
        stop = asyncio.Event()

        async def shout(name):
            async with raw_device(gateway, name) as device:
                seq, limit = 0, device.welcome["credit"]
                while not stop.is_set():
                    batch = [message(n) for n in range(seq + 1, min(limit, seq + 200) + 1)]
                    if batch:
                        seq += len(batch)
                        await device.say(batch)
                    frame = await device.hear()
                    limit = max(limit, frame.get("ack", 0) + frame.get("credit", 0))
                return seq

        shouting = [asyncio.create_task(shout(f"loud-{n}")) for n in range(chatty)]
        async with raw_device(gateway, "quiet") as quiet:
            for seq in range(1, 51):
                await quiet.say(message(seq))
                await quiet.hear_ack(seq)
        stop.set()
        # More than the quiet device, though a chatty one has a small window beside a few others.
        assert sum(await within(asyncio.gather(*shouting))) > 2 * 50


async def test_a_greedy_device_has_a_small_window_and_its_fleet_does_not(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            quiet = [
                await stack.enter_async_context(raw_device(gateway, f"quiet-{n}"))
                for n in range(20)
            ]
            loud = await stack.enter_async_context(raw_device(gateway, "loud"))
            sent, limit, turn = 0, loud.welcome["credit"], 0
            credit = limit
            while credit > 1:
                turn += 1
                for device in quiet:
                    await device.say(message(turn))
                    await device.hear_ack(turn)
                goal = sent + 64  # four times what greedy is, however small the acks are
                while sent < goal and credit > 1:
                    while sent < min(limit, goal):
                        sent += 1
                        await loud.say(message(sent))
                    frame = await loud.hear()
                    credit = frame["credit"]
                    limit = max(limit, frame["ack"] + credit)
            for device in quiet:
                await device.say(message(turn + 1))
                assert (await device.hear())["credit"] > 1
            await loud.say(message(sent + 1))
            greedy = b"tidegate_greedy_devices 1.0"
            await eventually(lambda: greedy in gateway.metrics.exposition()[0])


async def test_commands_for_a_device_that_does_not_read_are_held_back(tmp_path, way):
    settings = {"limits__write_buffer_bytes": 16_384, "limits__slow_reader_timeout_ms": 500}
    async with over_own_nats(tmp_path, way=way, **settings) as (nats, gateway):
        async with raw_device(gateway, max_queue=1) as device:
            client = await connect(nats.url)
            command = b'{"type":"t","data":"' + b"x" * 60_000 + b'"}'
            outcome = 'tidegate_commands_total{outcome="congested"}'

            async def congested():
                await client.publish("commands.default.veh-1", command)
                await client.flush()
                return outcome.encode() in gateway.metrics.exposition()[0]

            await eventually(congested)
            slow = 'tidegate_sessions_closed_total{cause="slow_reader"} 1.0'
            await eventually(lambda: slow.encode() in gateway.metrics.exposition()[0])
            await client.close()
            device.connection.transport.abort()
