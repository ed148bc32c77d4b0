"""Queued commands between gateway, disk and application."""

import asyncio

import pytest

from support.outboxes import refuse_commits
from support.scripted import device_of, scripted
from support.waiting import eventually, within
from tidegate import Rejected, mailbox
from tidegate.testing import CommandResult, FakeClock, Gateway

FEATURES = ["outboxes", "receipts"]
UNKNOWN = CommandResult(False, {"error": "unknown"})


def queued(identity, data=1):
    return {"command": {"id": identity, "type": "t", "data": data, "queued": True}}


async def greet(peer, **welcome):
    """Answer the hello, and the further one of a device that did not know this gateway."""
    hello = await peer.greet(features=FEATURES, **welcome)
    if "receipts" not in hello:
        hello = await peer.hello()
        await peer.resume(hello)
    assert hello["receipts"] is True
    return hello


async def hear_result(peer):
    return (await peer.hear())["result"]


async def test_the_trace_of_a_request_is_handed_over_with_it(tmp_path):
    async def play(peer):
        await greet(peer)
        for more in ({"trace": "00-of-the-rule-01"}, {}):
            await peer.say({"command": {"id": "r1", "type": "t", "data": 1, **more}})
        await peer.gone()

    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        commands = device.commands()
        assert (await within(anext(commands))).trace == "00-of-the-rule-01"
        assert (await within(anext(commands))).trace == ""


async def test_the_trace_of_a_queued_command_is_handed_over_with_it(tmp_path):
    async def play(peer):
        await greet(peer)
        command = {"id": "c1", "type": "t", "data": 1, "queued": True}
        await peer.say({"command": {**command, "trace": "00-of-the-asker-01"}})
        await peer.gone()

    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        command = await within(anext(device.commands()))
        assert (command.queued, command.trace) == (True, "00-of-the-asker-01")


async def test_a_command_is_received_given_answered_and_settled(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
            command = await gateway.queue_command("lock", {"doors": 4})
            got = await within(anext(device.commands()))
            assert (got.id, got.type, got.data, got.queued) == ("1", "lock", {"doors": 4}, True)
            await eventually(lambda: command.status == "delivered")
            await device.answer(got.id, ok=True, data="locked")
            assert await within(command.result()) == CommandResult(True, "locked")
            await eventually(lambda: not device._gear.mailbox._open)
            with pytest.raises(Rejected, match="does not wait"):
                await gateway.queue_command("lock")
                other = await within(anext(device.commands()))
                await device.answer(other.id, ok=True)
                await device.answer(other.id, ok=True)


async def test_a_command_waits_for_its_device_and_for_its_application(tmp_path):
    async with Gateway() as gateway:
        command = await gateway.queue_command("lock")
        async with device_of(gateway, tmp_path):
            await eventually(lambda: command.status == "delivered")
        async with device_of(gateway, tmp_path) as device:
            got = await within(anext(device.commands()))
            await device.answer(got.id, ok=True)
            assert await within(command.result()) == CommandResult(True, None)


async def test_a_command_that_was_handed_over_and_not_answered_is_unknown_after_a_restart(tmp_path):
    async with Gateway() as gateway:
        first = await gateway.queue_command("lock")
        second = await gateway.queue_command("open")
        async with device_of(gateway, tmp_path) as device:
            await within(anext(device.commands()))
        async with device_of(gateway, tmp_path) as device:
            assert await within(first.result()) == UNKNOWN
            got = await within(anext(device.commands()))
            assert got.id == second.id


async def test_a_result_is_sent_after_each_welcome_until_it_is_settled(tmp_path):
    heard = []

    async def give(peer):
        await greet(peer)
        await peer.say(queued("c1"))
        assert await peer.hear() == {"received": "c1"}
        heard.append(await hear_result(peer))
        peer.cut()

    async def lose(peer):
        await greet(peer)
        heard.append(await hear_result(peer))
        peer.cut()

    async def settle(peer):
        await greet(peer)
        heard.append(await hear_result(peer))
        await peer.say({"settled": "c1"})
        await peer.say({"settled": "nobody knows this one"})
        peer.cut()

    async def again(peer):
        await greet(peer)
        await peer.say(queued("c1"))
        assert await peer.hear() == {"received": "c1"}
        heard.append(await hear_result(peer))
        heard.append("end")
        await peer.gone()

    async with scripted(give, lose, settle, again) as gateway:
        async with device_of(gateway, tmp_path) as device:
            got = await within(anext(device.commands()))
            await device.answer(got.id, ok=True, data=[1])
            await eventually(lambda: "end" in heard)
    result = {"id": "c1", "ok": True, "data": [1]}
    assert heard == [result, result, result, result, "end"]


async def test_a_result_that_nobody_settles_is_repeated_within_a_session(tmp_path):
    async with Gateway() as gateway:
        gateway.withhold_settled()
        async with device_of(gateway, tmp_path) as device:
            command = await gateway.queue_command("lock")
            got = await within(anext(device.commands()))
            await device.answer(got.id, ok=True)
            await within(command.result())
            await gateway.clock.sleep(10)
            assert device._gear.mailbox._open, "it waits to be settled"
            gateway.settle_results()
            await gateway.clock.sleep(70)
            assert not device._gear.mailbox._open
    assert len(gateway.knocks) == 1


async def test_a_gateway_without_receipts_hears_of_none_and_gets_each_result_once(tmp_path):
    heard = []

    async def old(peer):
        await peer.greet(features=["outboxes"])
        if not heard:
            await peer.say(queued("c1"))
        heard.append(await peer.hear())
        peer.cut()

    async with scripted(old) as gateway:
        async with device_of(gateway, tmp_path) as device:
            got = await within(anext(device.commands()))
            await device.answer(got.id, ok=True)
            await eventually(lambda: heard)
            await device.send("t", 1)
            await eventually(lambda: len(heard) >= 2)
    assert heard[0]["result"]["id"] == "c1"
    assert heard[1]["seq"] == 1


@pytest.mark.parametrize("data", ["9" * 5_000])
async def test_a_command_that_cannot_be_read_has_failed(tmp_path, data):
    heard = []

    async def play(peer):
        await greet(peer)
        await peer.say('{"command":{"id":"c1","type":"t","queued":true,"data":' + data + "}}")
        await peer.say(queued("c2"))
        heard.extend([await peer.hear() for _ in range(3)])
        await peer.gone()

    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path) as device:
            got = await within(anext(device.commands()))
            if got.id == "c1":
                return  # this Python can read it
            await eventually(lambda: heard)
    results = [each["result"] for each in heard if "result" in each]
    assert [(each["id"], each["ok"]) for each in results] == [("c1", False)]
    assert {"received": "c1"} in heard


@pytest.mark.parametrize("bad", ["", "x" * 65])
async def test_a_command_with_an_impossible_id_is_not_taken(tmp_path, caplog, bad):
    async with scripted(play_ids(bad, "good")) as gateway:
        async with device_of(gateway, tmp_path) as device:
            assert (await within(anext(device.commands()))).id == "good"
    assert "its id has" in caplog.text


def play_ids(*identities):
    async def play(peer):
        await greet(peer)
        for identity in identities:
            await peer.say(queued(identity))
        await peer.gone()

    return play


@pytest.mark.parametrize(
    ("bound", "value", "taken"), [("COMMANDS_MAX", 5, 5), ("OPEN_BYTES_MAX", 3, 3)]
)
async def test_commands_are_bounded_in_number_and_bytes(
    tmp_path, caplog, monkeypatch, bound, value, taken
):
    monkeypatch.setattr(mailbox, bound, value)
    async with scripted(play_ids(*map(str, range(9)))) as gateway:
        async with device_of(gateway, tmp_path) as device:
            commands = device.commands()
            got = [(await within(anext(commands))).id for _ in range(taken)]
            assert got == [str(n) for n in range(taken)]
            await eventually(lambda: caplog.text.count("too many are not settled") == 9 - taken)


async def test_results_that_nobody_settles_give_way_to_new_commands(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mailbox, "COMMANDS_MAX", 5)
    async with Gateway() as gateway:
        gateway.withhold_settled()
        async with device_of(gateway, tmp_path) as device:
            device.on("t")(lambda command: command.data)
            for n in range(20):
                command = await gateway.queue_command("t", n)
                assert await within(command.result()) == CommandResult(True, n)
                assert len(device._gear.mailbox._open) <= 5
            await gateway.clock.sleep(1)
            again = await gateway.queue_command("t", "again", command_id="1")
            assert await within(again.result()) == CommandResult(True, 0), "its id is remembered"
    assert "was never settled" in caplog.text


async def test_the_disk_is_asked_again_and_nothing_is_said_before_it_has_agreed(tmp_path):
    heard, ready = [], asyncio.Event()

    async def play(peer):
        await greet(peer)
        await ready.wait()
        await peer.say(queued("c1"))
        heard.append(await peer.hear())
        await peer.gone()

    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
            outbox = device._gear.store.outbox
            refuse_commits(outbox)
            ready.set()
            commands = device.commands()
            waiting = asyncio.create_task(anext(commands))
            await gateway.clock.sleep(10)
            assert not heard
            assert not waiting.done()
            refuse_commits(outbox, refused=False)
            assert (await within(waiting)).id == "c1"
            assert heard == [{"received": "c1"}]
            refuse_commits(outbox)
            await device.answer("c1", ok=True)
            refuse_commits(outbox, refused=False)
            assert device._gear.mailbox._open["c1"].result is not None, "it is sent all the same"


async def test_a_reader_that_gives_up_loses_no_command(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            for _ in range(20):
                reader = asyncio.create_task(anext(device.commands()))
                await asyncio.sleep(0)
                reader.cancel()
                await asyncio.wait({reader})
            command = await gateway.queue_command("lock")
            assert (await within(anext(device.commands()))).id == command.id


async def test_results_are_sent_at_a_pace(tmp_path):
    heard = []
    clock = FakeClock(autojump=True)

    async def first(peer):
        await greet(peer)
        for n in range(200):
            await peer.say(queued(str(n)))
            assert await peer.hear() == {"received": str(n)}
        await peer.gone()

    async def then(peer):
        await greet(peer)
        while len(heard) < 200:
            heard.append((clock.monotonic(), (await hear_result(peer))["id"]))
        await peer.gone()

    async with scripted(first, then, clock=clock) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await eventually(lambda: len(device._gear.mailbox.commands) == 200)
            commands = device.commands()
            for _ in range(200):
                await within(anext(commands))
        async with device_of(gateway, tmp_path):
            await eventually(lambda: len(heard) == 200)
    assert [identity for _at, identity in heard] == [str(n) for n in range(200)]
    at = [moment for moment, _identity in heard]
    assert all(later - earlier >= 0.9 for earlier, later in zip(at, at[101:], strict=False))


async def test_a_command_whose_time_has_passed_is_not_handed_over_and_says_so(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            late = await gateway.queue_command("lock", ttl_ms=60_000)
            await eventually(lambda: late.status == "delivered")
            gateway.clock.advance(60.0)
            commands = device.commands()
            waiting = asyncio.create_task(anext(commands))
            assert await within(late.result()) == CommandResult(False, {"error": "expired"})
            assert late.status == "expired"
            in_time = await gateway.queue_command("open", ttl_ms=60_000)
            assert (await within(waiting)).id == in_time.id


async def test_an_endless_time_and_one_that_has_passed_already(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            late = await gateway.queue_command("lock", ttl_ms=-1)
            endless = await gateway.queue_command("open", ttl_ms=10**300)
            assert (await within(anext(device.commands()))).id == endless.id
            assert late.status == "expired"
