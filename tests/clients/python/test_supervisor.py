"""Whatever ends a task of the client, it is tried again, or the application is told."""

import asyncio
import logging

import pytest

from support.outboxes import is_free
from support.scripted import answer, device_of, friendly, nobody, scripted
from support.waiting import eventually, within
from tidegate import (
    CredentialRefused,
    OutboxError,
)
from tidegate.outbox import Outbox
from tidegate.outbox_thread import OutboxThread
from tidegate.testing import unsigned_jwt


async def giving_up(_refused):
    raise CredentialRefused("the vehicle was sold")


@pytest.mark.parametrize(
    "failure",
    [OSError("issuer unreachable"), RuntimeError("bug"), KeyError("token"), TimeoutError(),
     asyncio.CancelledError()],
)  # fmt: skip
async def test_a_provider_that_raises_is_asked_again(tmp_path, caplog, failure):
    calls = []

    async def provide(_refused):
        calls.append(1)
        if len(calls) == 1:
            raise failure
        return "t"

    async with scripted(friendly) as gateway, device_of(gateway, tmp_path, provide) as device:
        await within(device.connected.wait())
        assert device.failure is None
    assert len(calls) == 2
    assert "the credential provider" in caplog.text


@pytest.mark.parametrize(
    "nonsense",
    ["[", "7", '{"ack":"x"}', '{"ack":99,"credit":1}', "[" * 100_000, '{"welcome":{}}',
     '{"resume":{"outbox":"x","seq":1},"credit":1}', '{"welcome":' + "9" * 5_000 + "}"],
    ids=lambda text: text[:20],
)  # fmt: skip
async def test_nonsense_of_the_gateway_ends_a_session_and_not_the_device(tmp_path, nonsense):
    async def speak(peer):
        await peer.greet()
        await peer.say(nonsense)
        await peer.gone()

    async def speak_early(peer):
        await peer.hello()
        await peer.say(nonsense)
        await peer.gone()

    async with scripted(speak, speak_early, friendly) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await device.send("a", 1)
            await within(device.flush())
            assert device.failure is None


@pytest.mark.parametrize("told_ms", [10**18, -(10**18)])
async def test_absurd_times_of_a_gateway_do_not_break_the_timers(tmp_path, told_ms):
    async def goaway(peer):
        await peer.greet(first_retry_ms=told_ms)
        await peer.say({"notice": {"first_retry_ms": 20}})
        await peer.gone()

    async with scripted(goaway) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.connected.wait())
        assert device.failure is None


@pytest.mark.parametrize("refused", ["begin", "read", "settle"])
async def test_a_disk_that_refuses_for_a_while_ends_no_device(
    tmp_path, caplog, monkeypatch, refused
):
    fails = []
    real = getattr(Outbox, refused)
    # One settling covers many acks, so how often there is one is not known.
    times = 1 if refused == "settle" else 3

    def refusing(self, *arguments, **more):
        if len(fails) < times:
            fails.append(1)
            raise OutboxError("outbox cannot grow: the disk is full")
        return real(self, *arguments, **more)

    async with scripted(friendly) as gateway, device_of(gateway, tmp_path) as device:
        monkeypatch.setattr(Outbox, refused, refusing)
        for n in range(5):
            await device.send("a", n)
            if refused == "settle":
                await within(device.connected.wait())
        await eventually(lambda: len(fails) == times)
        await device.send("a", "last")
        await within(device.flush())
        assert device.failure is None
        assert device.connected
    assert "the disk is full" in caplog.text or "the disk is full" in str(device.last_error)
    with_messages = Outbox(tmp_path / "box")
    assert len(with_messages) == 0
    with_messages.close()


async def test_a_fault_of_this_client_is_logged_and_tried_again(tmp_path, caplog, monkeypatch):
    calls = []
    real = OutboxThread.begin

    async def broken(self):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return await real(self)

    monkeypatch.setattr(OutboxThread, "begin", broken)
    async with scripted(friendly) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.connected.wait())
    assert "a fault of this client" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_provider_that_gives_up_ends_every_wait(tmp_path):
    async with device_of(nobody(), tmp_path, giving_up) as device:
        for wait in (device.connected.wait(), anext(device.commands()), _flush_one(device)):
            with pytest.raises(CredentialRefused, match="sold"):
                await within(wait)
        assert not device.connected
    assert is_free(tmp_path / "box")


async def _flush_one(device):
    await device.send("a", 1)
    await device.flush()


async def test_a_provider_that_gives_up_at_a_renewal_ends_the_device(tmp_path):
    calls = []

    async def provide(_refused):
        calls.append(1)
        if len(calls) > 1:
            raise CredentialRefused("sold")
        return unsigned_jwt(iat=0, exp=1)

    async with scripted(friendly) as gateway, device_of(gateway, tmp_path, provide) as device:
        with pytest.raises(CredentialRefused):
            await within(anext(device.commands()))


async def test_after_two_goaways_the_new_connection_is_made_before_the_old_one_ends(tmp_path):
    ends = []

    async def send_away(peer):
        await peer.greet()
        for _ in range(2):
            await peer.say({"goaway": {"reason": "drain", "retry_ms": 1, "ticket": "slot"}})
        await peer.gone()
        ends.append("old")

    async def take_over(peer):
        ends.append("new")
        await friendly(peer)

    async with scripted(send_away, take_over) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await eventually(lambda: ends == ["new", "old"])
            await device.send("a", 1)
            await within(device.flush())
            assert device.connected
    assert gateway.knocks[1].ticket == "slot"


async def test_a_takeover_backs_off(tmp_path):
    async def take_over(peer):
        await peer.greet()
        await peer.close(4409, {"error": "taken_over"})

    async with scripted(take_over, take_over, friendly) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await gateway.knocked(3)
            await within(device.connected.wait())
            assert device.last_refusal.status == 4409


async def test_the_log_names_no_secret_even_at_debug(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token = unsigned_jwt(sub="veh-1")
    echo = {"error": "credential", "detail": f"cannot believe {token}"}

    async def echoing(peer):
        await peer.greet()
        await peer.close(4401, {"error": "x", "detail": token[:60]})

    async def provide(_refused):
        return token

    async with scripted(answer(401, echo), echoing, friendly) as gateway:
        async with device_of(gateway, tmp_path, provide) as device:
            await gateway.knocked(3)
            await within(device.connected.wait())
            assert token not in str(device.last_error)
    client = [each for each in caplog.records if not each.name.startswith("websockets.server")]
    assert client
    assert not any(token in each.getMessage() for each in client)
