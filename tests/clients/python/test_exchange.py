"""Callbacks, commands and answers: what passes between a device and its application."""

import asyncio
import functools

import pytest

from support.outboxes import is_free
from support.scripted import device_of, friendly, nobody, scripted, told
from support.waiting import eventually, within
from tidegate import (
    CallbackFailed,
    Misuse,
    Rejected,
)


@pytest.mark.parametrize("data", ["9" * 5_000, '"' + "x" * 100 + '"'])
async def test_a_command_that_cannot_be_read_gets_an_error_answer(tmp_path, data):
    heard = []

    async def command(peer):
        await peer.greet()
        await peer.say('{"command":{"id":"7","type":"t","data":' + data + "}}")
        await peer.say({"command": {"id": "8", "type": "t", "data": 1}})
        heard.append(await peer.hear())
        await peer.gone()

    async with scripted(command) as gateway, device_of(gateway, tmp_path) as device:
        got = await within(anext(device.commands()))
        if data.startswith('"'):
            assert got.id == "7"
            return
        assert got.id == "8"
        await eventually(lambda: heard)
        if data.startswith("9"):
            assert heard[0]["result"]["id"] == "7"
            assert heard[0]["result"]["ok"] is False


async def test_commands_beyond_the_bound_get_an_error_answer(tmp_path):
    heard = []

    async def command(peer):
        await peer.greet()
        for n in range(1_001):
            await peer.say({"command": {"id": str(n), "type": "t"}})
        heard.append(await peer.hear())
        await peer.gone()

    async with scripted(command) as gateway, device_of(gateway, tmp_path):
        await eventually(lambda: heard)
    assert heard[0]["result"]["id"] == "1000"


def raising(_argument):
    raise LookupError("in the application")


@pytest.mark.parametrize("callback", ["on_ack", "on_reject"])
async def test_a_callback_that_raises_ends_the_device_and_every_call_raises_the_reason(
    tmp_path, caplog, callback
):
    async def settle(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"reject": {"seq": 1, "error": "type"}})
        await peer.say({"ack": 1, "credit": 9})
        await peer.gone()

    async with scripted(settle) as gateway:
        async with device_of(gateway, tmp_path, **{callback: raising}) as device:
            await device.send("a", 1)
            waits = [
                asyncio.create_task(wait)
                for wait in (_never_connected(device), anext(device.commands()))
            ]
            for wait in waits:
                failure = await told(wait)
                assert isinstance(failure, CallbackFailed)
                assert isinstance(failure.__cause__, LookupError)
            for wait in (device.flush(), device.send("a", 2), device.answer("1", ok=True)):
                with pytest.raises(CallbackFailed, match="LookupError: in the application"):
                    await within(wait)
    assert isinstance(device.failure, CallbackFailed)
    assert "giving up" in caplog.text
    assert "LookupError" in caplog.text, "with its traceback"
    assert is_free(tmp_path / "box")


async def _never_connected(device):
    await eventually(lambda: device.failure)
    await device.connected.wait()


async def test_a_callback_that_raises_for_the_connection_left_behind_ends_the_device_too(tmp_path):
    async def send_away(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"goaway": {"reason": "drain", "retry_ms": 3_600_000, "ticket": "t"}})
        await peer.say({"ack": 1, "credit": 9})
        await peer.gone()

    async with scripted(send_away) as gateway:
        async with device_of(gateway, tmp_path, on_ack=raising) as device:
            await device.send("a", 1)
            with pytest.raises(CallbackFailed):
                await within(_never_connected(device))
    assert is_free(tmp_path / "box")


async def async_callback(_argument):
    pass


class AsyncObject:
    async def __call__(self, _argument):
        pass


@pytest.mark.parametrize(
    "callback", [async_callback, functools.partial(async_callback), AsyncObject()]
)
def test_an_asynchronous_callback_is_refused_where_it_is_given(tmp_path, callback):
    for name in ("on_ack", "on_reject"):
        with pytest.raises(Misuse, match=f"{name} is a coroutine function"):
            device_of(nobody(), tmp_path, **{name: callback})


def returns_an_awaitable(number):
    return async_callback(number)


async def test_a_callback_that_returns_an_awaitable_ends_the_device(tmp_path):
    async with scripted(friendly) as gateway:
        async with device_of(gateway, tmp_path, on_ack=returns_an_awaitable) as device:
            await device.send("a", 1)
            with pytest.raises(CallbackFailed, match="awaitable"):
                await within(_never_connected(device))


@pytest.mark.parametrize("bad", ["", "x" * 65, 7, None])
async def test_answers_are_checked(tmp_path, bad):
    deep = loop = []
    for _ in range(50_000):
        loop.append([])
        loop = loop[0]
    async with device_of(nobody(), tmp_path) as device:
        with pytest.raises(Rejected, match="32 levels"):
            await device.answer("1", ok=True, data=deep)
        with pytest.raises(Rejected):
            await device.answer("1", ok=True, data=float("nan"))
        if bad != "":
            with pytest.raises(Rejected, match="id"):
                await device.answer(bad, ok=True)
