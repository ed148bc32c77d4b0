"""Handlers of commands: what they return or raise is the result, and nothing ends the session."""

import asyncio
import contextlib
import logging

import pytest

from support.scripted import device_of
from support.waiting import eventually, within
from tidegate import Command, CommandFailed, Misuse
from tidegate.testing import CommandResult, Gateway

NOT_UNDERSTOOD = CommandResult(False, {"error": "not_understood"})


@contextlib.asynccontextmanager
async def world(directory, **options):
    async with Gateway() as gateway:
        async with device_of(gateway, directory, **options) as device:
            yield gateway, device


async def outcome(gateway, command_type, data=None, *, queued=True):
    if not queued:
        return await within(gateway.command(command_type, data))
    command = await gateway.queue_command(command_type, data)
    return await within(command.result())


@pytest.mark.parametrize("queued", [True, False])
async def test_plain_and_asynchronous_handlers_answer_with_what_they_return(tmp_path, queued):
    async with world(tmp_path) as (gateway, device):

        @device.on("door.lock")
        def lock(command):
            return {"locked": command.data}

        @device.on("door.open")
        async def unlock(command):
            await asyncio.sleep(0)
            return command.id

        assert await outcome(gateway, "door.lock", [4], queued=queued) == (True, {"locked": [4]})
        assert (await outcome(gateway, "door.open", queued=queued)).ok
        assert lock(Command("1", "t", 2)) == {"locked": 2}, "it is the function that it was"


def fails():
    raise CommandFailed("jammed", {"door": 4})


def fails_without_words():
    raise CommandFailed


def fails_unsendable():
    raise CommandFailed("jammed", object())


def breaks():
    raise LookupError("a secret")


def cancels():
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("handler", "data"),
    [
        (fails, {"error": "jammed", "detail": {"door": 4}}),
        (fails_without_words, {"error": "failed"}),
        (fails_unsendable, {"error": "jammed"}),
        (breaks, {"error": "failed", "detail": "LookupError"}),
        (cancels, {"error": "failed", "detail": "CancelledError"}),
    ],
)
async def test_a_handler_that_raises_has_failed_and_the_next_command_comes(
    tmp_path, caplog, handler, data
):
    async with world(tmp_path) as (gateway, device):
        device.on("t")(lambda _command: handler())
        device.on("ok")(lambda _command: None)
        assert await outcome(gateway, "t") == CommandResult(False, data)
        assert await outcome(gateway, "ok") == CommandResult(True, None)
        assert len(gateway.knocks) == 1, "the session went on"
    if handler is breaks:
        record = next(each for each in caplog.records if each.levelno == logging.ERROR)
        assert "the handler of t failed" in record.getMessage()
        assert record.exc_info is not None


async def test_what_cannot_be_sent_is_a_failure(tmp_path, caplog):
    async with world(tmp_path) as (gateway, device):
        device.on("t")(lambda _command: float("nan"))
        result = await outcome(gateway, "t")
        assert (result.ok, result.data["error"]) == (False, "result")
    assert "returned what cannot be sent" in caplog.text


@pytest.mark.parametrize("queued", [True, False])
async def test_a_type_without_a_handler_is_not_understood(tmp_path, queued):
    async with world(tmp_path) as (gateway, device):
        device.on("t")(lambda _command: None)
        assert await outcome(gateway, "other", queued=queued) == NOT_UNDERSTOOD
        assert (await outcome(gateway, "t", queued=queued)).ok


async def test_beside_an_iterator_only_the_types_with_a_handler_are_handled(tmp_path):
    async with world(tmp_path) as (gateway, device):
        commands = device.commands()
        device.on("t")(lambda _command: "handled")
        asking = asyncio.create_task(outcome(gateway, "other"))
        got = await within(anext(commands))
        assert got.type == "other"
        await device.answer(got.id, ok=True, data="iterated")
        assert await asking == CommandResult(True, "iterated")
        assert await outcome(gateway, "t") == CommandResult(True, "handled")


async def test_without_handlers_commands_wait_for_an_iterator(tmp_path):
    async with world(tmp_path) as (gateway, device):
        command = await gateway.queue_command("t")
        await eventually(lambda: command.status == "delivered")
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await within(anext(device.commands()))).id == command.id


async def test_handlers_run_one_after_the_other(tmp_path):
    running, most, order = 0, 0, []
    async with world(tmp_path) as (gateway, device):

        @device.on("t")
        async def slow(command):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gateway.clock.sleep(5)
            order.append(command.data)
            running -= 1

        requests = [asyncio.create_task(gateway.command("t", n)) for n in range(5)]
        await within(asyncio.gather(*requests))
    assert most == 1
    assert order == list(range(5))


async def test_a_handler_that_the_end_of_the_device_cuts_off_is_unknown_and_not_run_again(tmp_path):
    ran = []
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path) as device:

            @device.on("t")
            async def hang(command):
                ran.append(command.id)
                await asyncio.Event().wait()

            command = await gateway.queue_command("t")
            await eventually(lambda: ran)
        async with device_of(gateway, tmp_path) as device:
            device.on("t")(lambda command: ran.append(command.id))
            assert await within(command.result()) == CommandResult(False, {"error": "unknown"})
            assert (await outcome(gateway, "t")).ok
    assert len(ran) == len(set(ran)) == 2


@pytest.mark.parametrize("bad", ["", "a b", "a.*", 7])
async def test_a_handler_needs_a_type(tmp_path, bad):
    async with Gateway() as gateway:
        device = device_of(gateway, tmp_path)
        with pytest.raises(Misuse, match="tokens"):
            device.on(bad)(print)
        with pytest.raises(Misuse, match="cannot be called"):
            device.on("t")(None)
        device.on("t")(print)
        with pytest.raises(Misuse, match="already"):
            device.on("t")(print)
