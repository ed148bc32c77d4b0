"""The gateway of `tidegate.testing` does what a test demands, and the device notices."""

import asyncio

import pytest

from support.scripted import device_of
from support.waiting import within
from tidegate import BadCredential, CredentialRefused, OutboxLimits, Rejected, Unreachable
from tidegate.answers import Meaning
from tidegate.connection import Closed
from tidegate.testing import (
    CommandResult,
    FakeClock,
    Gateway,
    RejectedMessage,
    StoredMessage,
    refusals,
    unsigned_jwt,
)

NOON = "2026-11-25T12:00:00Z"


async def test_messages_are_stored_in_order_and_acknowledged(tmp_path):
    acked = []
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path, on_ack=acked.append) as device:
            await device.send("battery.low", {"soc": 7}, time=NOON)
            await device.send("door", [1, None])
            await within(device.flush())
    assert gateway.stored == [
        StoredMessage("battery.low", {"soc": 7}, NOON),
        StoredMessage("door", [1, None], None),
    ]
    assert acked[-1] == 2


@pytest.mark.parametrize(
    ("answer", "meaning", "reason"),
    [
        (refusals.credential("unknown key"), Meaning.CREDENTIAL, "unknown key"),
        (refusals.revoked(), Meaning.CREDENTIAL, "revoked"),
        (refusals.device_rate(3_000), Meaning.WAIT, "device_rate"),
        (refusals.address_rate(3_000), Meaning.WAIT, "address_rate"),
        (refusals.admission(3_000), Meaning.WAIT, "admission rate"),
        (refusals.admission(3_000, ticket="t"), Meaning.WAIT, "admission rate"),
        (refusals.admission(3_000, reason="draining"), Meaning.WAIT, "admission draining"),
        (refusals.page(503), Meaning.ABSENT, "503"),
        (refusals.page(302), Meaning.FOREIGN, "302"),
    ],
)
async def test_a_knock_can_be_refused_in_every_way(tmp_path, answer, meaning, reason):
    tokens = iter("abc")

    async def provide(_refused):
        return next(tokens)

    async with Gateway() as gateway:
        gateway.refuse(answer)
        began = gateway.clock.monotonic()
        async with device_of(gateway, tmp_path, provide) as device:
            await within(device.connected.wait())
            assert device.last_refusal.meaning is meaning
            assert reason in str(device.last_refusal)
    assert len(gateway.knocks) == 2
    if meaning is Meaning.WAIT:
        assert gateway.clock.monotonic() - began >= 3.0
    if device.last_refusal.ticket is not None:
        assert gateway.knocks[1].ticket == "t"


@pytest.mark.parametrize(
    "answer", [refusals.bad_request(), refusals.not_found(), refusals.upgrade_required()]
)
async def test_an_address_that_is_no_endpoint_ends_the_device(tmp_path, answer):
    async with Gateway() as gateway:
        gateway.refuse(answer)
        async with device_of(gateway, tmp_path) as device:
            with pytest.raises(Unreachable):
                await within(device.connected.wait())


async def test_a_gateway_that_is_down_answers_nobody(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(gateway.session())
            gateway.go_down()
            await device.send("t", 1)
            await gateway.clock.sleep(600)
            assert not device.connected
            assert "Connection refused" in device.last_error
            gateway.come_up()
            await within(device.flush())
    assert [each.data for each in gateway.stored] == [1]


async def test_a_hold_settles_nothing_until_it_is_released(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(gateway.session())
            await gateway.hold()
            await device.send("t", 1)
            await gateway.clock.sleep(60)
            assert (device.pending, gateway.stored) == (1, [])
            gateway.cut()  # the next session gets the hold too
            await gateway.clock.sleep(60)
            assert (device.pending, gateway.stored) == (1, [])
            await gateway.release()
            await within(device.flush())
            assert device.connected
    assert [each.data for each in gateway.stored] == [1]


async def test_a_message_that_was_on_its_way_when_the_hold_came_is_stored_afterwards(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            session = await within(gateway.session())
            gateway._demands.hold = "stream"  # the device has not received the frame
            await device.send("t", 1)
            await gateway.clock.sleep(1)
            assert gateway.stored == []
            await session.hold("stream")
            await gateway.release()
            await within(device.flush())
    assert len(gateway.stored) == 1


async def test_a_lost_acknowledgement_stores_nothing_twice(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            gateway.withhold_acks()
            await device.send("t", 1)
            await gateway.clock.sleep(10)
            assert (device.pending, len(gateway.stored)) == (1, 1)
            gateway.cut()
            await gateway.acknowledge()
            await within(device.flush())
    assert len(gateway.stored) == 1


async def test_acknowledgements_can_come_later_on_the_same_connection(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            gateway.withhold_acks()
            await device.send("t", 1)
            await gateway.clock.sleep(10)
            await gateway.acknowledge()
            await within(device.flush())
    assert len(gateway.knocks) == 1


async def test_messages_can_be_rejected_by_a_rule(tmp_path):
    rejects = []
    async with Gateway() as gateway:
        gateway.reject(lambda message: "schema" if message.data == "bad" else None)
        async with device_of(gateway, tmp_path, on_reject=rejects.append) as device:
            for data in ("good", "bad", "good"):
                await device.send("t", data)
            await within(device.flush())
            gateway.reject(None)
            await device.send("t", "bad")
            await within(device.flush())
    assert [each.data for each in gateway.stored] == ["good", "good", "bad"]
    assert gateway.rejected == [RejectedMessage("t", "bad", "schema")]
    assert [(each.seq, each.error) for each in rejects] == [(2, "schema")]


async def test_a_command_is_answered(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            asking = asyncio.create_task(gateway.command("lock", {"doors": 4}))
            command = await within(anext(device.commands()))
            assert (command.type, command.data) == ("lock", {"doors": 4})
            await device.answer("unknown", ok=True)
            await device.answer(command.id, ok=False, data="jammed")
            assert await within(asking) == CommandResult(False, "jammed")


async def test_a_command_whose_connection_is_lost_is_not_answered(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            asking = asyncio.create_task(gateway.command("lock"))
            await within(anext(device.commands()))
            gateway.cut()
            with pytest.raises(Closed):
                await within(asking)


async def test_a_close_means_what_the_contract_says(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            await gateway.close(4403, {"error": "revoked"})
            with pytest.raises(CredentialRefused):
                await within(device.commands().__anext__())


async def test_a_device_that_is_sent_away_comes_back_in_its_slot_before_it_hangs_up(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(gateway.session())
            began = gateway.clock.monotonic()
            await gateway.send_away(8_000, ticket="slot")
            await gateway.clock.sleep(7.9)
            assert device.connected
            assert len(gateway.knocks) == 1
            await gateway.clock.sleep(0.2)
            assert gateway.knocks[1].ticket == "slot"
            assert device.knocks.lateness_ms < 1
            await device.send("t", 1)
            await within(device.flush())
    assert gateway.clock.monotonic() - began < 10
    assert len(gateway.stored) == 1


async def test_a_notice_spreads_the_first_attempt_over_another_time(tmp_path):
    async def back_after(seed, first_retry_ms):
        async with Gateway(seed=seed) as gateway:
            async with device_of(gateway, tmp_path) as device:
                await gateway.notice(first_retry_ms)
                await gateway.clock.sleep(60)
                lost = gateway.clock.monotonic()
                gateway.cut()
                await device.send("t", 1)
                await within(device.flush())
                return gateway.clock.monotonic() - lost

    near = [await back_after(seed, 1_000) for seed in range(4)]
    far = [await back_after(seed, 60_000) for seed in range(4)]
    assert max(near) <= 1.1
    assert max(far) > 10


async def test_a_second_connection_takes_over(tmp_path):
    (tmp_path / "two").mkdir()
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as first:
            await within(first.connected.wait())
            async with device_of(gateway, tmp_path / "two") as second:
                await within(second.connected.wait())
                await gateway.clock.sleep(0.001)
            assert first.last_refusal.status == 4409


async def test_a_seed_repeats_a_run_and_another_seed_does_not(tmp_path):
    async def run(seed, directory):
        directory.mkdir()
        times = []
        async with Gateway(seed=seed) as gateway:
            gateway.refuse(*[refusals.page()] * 4, *[refusals.page(500)] * 4)
            async with device_of(gateway, directory) as device:
                await within(device.connected.wait())
                times.append(gateway.clock.monotonic())
        return times

    assert await run(1, tmp_path / "a") == await run(1, tmp_path / "b")
    assert await run(1, tmp_path / "c") != await run(2, tmp_path / "d")


async def test_the_gateways_limits_can_be_chosen(tmp_path):
    async with Gateway(max_message_bytes=10) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
            with pytest.raises(Rejected, match="over 10"):
                await device.send("t", "x" * 9)


async def test_a_credential_is_renewed_on_the_fake_clock(tmp_path):
    tokens = [unsigned_jwt(iat=0, exp=3_600, jti=n) for n in range(2)]
    given = iter(tokens)

    async def provide(_refused):
        return next(given)

    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path, provide):
            await within(gateway.session())
            assert gateway.renewed == []
            await gateway.clock.sleep(3_600)
            assert gateway.renewed == tokens[1:]
    assert gateway.renewed == []


async def test_ages_in_the_outbox_follow_the_fake_clock(tmp_path):
    limits = OutboxLimits(age_max_s=3_600, when_full="drop_oldest")
    async with Gateway() as gateway:
        gateway.go_down()
        async with device_of(gateway, tmp_path, limits=limits) as device:
            await device.send("t", 1)
            await gateway.clock.sleep(3_700)
            assert (device.pending, device.dropped) == (0, 1)


async def test_a_hello_without_an_answer_is_given_up_after_its_time(tmp_path):
    async def mute(peer):
        await peer.hello()
        await peer.gone()

    plays = iter([mute])
    clock = FakeClock(autojump=True)
    async with Gateway(clock=clock) as gateway:
        gateway._listener._reply = lambda knock: next(plays, gateway._play)
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
            assert device.last_error == "the gateway did not answer a hello"
    assert clock.monotonic() > 1_090


async def test_a_token_that_no_header_can_carry_is_refused_in_memory_too(tmp_path):
    async with Gateway() as gateway:
        with pytest.raises(BadCredential):
            device_of(gateway, tmp_path, "a b")
