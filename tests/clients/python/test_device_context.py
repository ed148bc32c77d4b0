"""Entering and leaving a device: nothing stays open, and every call outside raises."""

import asyncio
import contextlib

import pytest

from support.outboxes import is_free
from support.scripted import device_of, friendly, nobody, scripted, told
from support.waiting import eventually, within
from tidegate import (
    BadAddress,
    CredentialRefused,
    Device,
    DeviceError,
    Misuse,
    NotOpen,
    OutboxError,
)
from tidegate.outbox import Outbox


async def giving_up(_refused):
    raise CredentialRefused("the vehicle was sold")


async def test_outside_of_its_context_every_call_says_so(tmp_path):
    device = device_of(nobody(), tmp_path)
    for moment in ("before", "after"):
        for wait in (device.send("a", 1), device.flush(), device.answer("1", ok=True),
                     device.connected.wait(), anext(device.commands())):  # fmt: skip
            with pytest.raises(NotOpen, match="async with"):
                await within(wait)
        if moment == "before":
            async with device:
                await device.send("a", 1)
    with pytest.raises(Misuse, match="once"):
        async with device:
            pass


async def test_calls_that_wait_while_the_device_is_closed_raise(tmp_path):
    async with device_of(nobody(), tmp_path) as device:
        await device.send("a", 1)
        flushing = asyncio.create_task(device.flush())
        connecting = asyncio.create_task(device.connected.wait())
        reading = asyncio.create_task(_all_commands(device))
        await asyncio.sleep(0)
    assert isinstance(await told(flushing), NotOpen)
    assert isinstance(await told(connecting), NotOpen)
    assert await told(reading) is None, "the iteration ends"
    assert device.failure is None


async def _all_commands(device):
    async for _command in device.commands():
        pass


async def test_many_sends_while_it_is_closed_are_stored_or_refused(tmp_path):
    async with device_of(nobody(), tmp_path) as device:
        sending = [asyncio.create_task(device.send("a", n)) for n in range(50)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*sending, return_exceptions=True)
    stored = [each for each in results if isinstance(each, int)]
    box = Outbox(tmp_path / "box")
    assert len(box) == len(stored) == 50
    box.close()


async def test_an_outbox_that_is_open_elsewhere_is_an_error_and_nothing_stays_open(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tidegate.outbox_file._BUSY_TIMEOUT_S", 0.05)
    async with device_of(nobody(), tmp_path):
        second = device_of(nobody(), tmp_path)
        with pytest.raises(OutboxError, match="is open already"):
            await second.__aenter__()
    assert is_free(tmp_path / "box")


@pytest.mark.parametrize("path", ["/nonexistent/dir/box", "/", "a\0b"])
async def test_a_path_that_cannot_be_opened_is_an_error(path):
    with pytest.raises(OutboxError):
        await Device("ws://x/", "t", outbox=path).__aenter__()


@pytest.mark.parametrize("url", ["http://x/", "ws://[bad", ""])
def test_a_wrong_address_opens_nothing(tmp_path, url):
    with pytest.raises(BadAddress):
        device_of(nobody(), tmp_path, url=url)
    assert not (tmp_path / "box").exists()


def test_wrong_options_are_refused_by_the_constructor(tmp_path):
    import ssl

    with pytest.raises(Misuse, match="wss://"):
        device_of(nobody(), tmp_path, ssl=ssl.create_default_context())
    with pytest.raises(Misuse, match="SSLContext"):
        device_of(nobody(), tmp_path, url="wss://x/", ssl=True)
    with pytest.raises(Misuse, match="provider"):
        device_of(nobody(), tmp_path, None)


async def test_leaving_is_not_stopped_by_a_cancellation_and_frees_the_file(tmp_path):
    async with scripted(friendly) as gateway:
        device = device_of(gateway, tmp_path)
        await device.__aenter__()
        await device.send("a", 1)
        leaving = asyncio.create_task(device.__aexit__(None, None, None))
        for _ in range(3):
            await asyncio.sleep(0)
            leaving.cancel()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
        assert is_free(tmp_path / "box")


async def test_leaving_raises_the_error_of_the_body(tmp_path):
    with pytest.raises(ZeroDivisionError):
        async with device_of(nobody(), tmp_path, giving_up) as device:
            await eventually(lambda: device.failure)
            raise ZeroDivisionError
    assert is_free(tmp_path / "box")


async def test_a_provider_that_cannot_be_cancelled_does_not_keep_the_file(tmp_path, caplog):
    called, release = asyncio.Event(), asyncio.Event()

    async def stubborn(_refused):
        called.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        raise CredentialRefused("at last")

    async with device_of(nobody(), tmp_path, stubborn) as device:
        await within(called.wait())
        runner = device._runner
    assert is_free(tmp_path / "box")
    assert "does not end" in caplog.text
    release.set()
    await asyncio.wait({runner})


async def test_sends_that_are_cancelled_harm_nobody(tmp_path):
    async with device_of(nobody(), tmp_path) as device:
        sending = [asyncio.create_task(device.send("a", n)) for n in range(10)]
        await asyncio.sleep(0)
        for each in sending[::2]:
            each.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        assert await device.send("a", "last") == 11


async def test_flush_and_exit_leave_nothing_acknowledged_in_the_file(tmp_path):
    async with scripted(friendly) as gateway:
        for n in range(10):
            async with device_of(gateway, tmp_path) as device:
                await asyncio.gather(*(device.send("t", n * 20 + i) for i in range(20)))
                await within(device.flush())
                assert device.pending == 0
            box = Outbox(tmp_path / "box")
            assert len(box) == 0
            box.close()


async def test_acknowledged_messages_leave_the_file_at_an_exit_without_flush(tmp_path):
    acked = []
    async with scripted(friendly) as gateway:
        async with device_of(gateway, tmp_path, on_ack=acked.append) as device:
            await asyncio.gather(*(device.send("t", n) for n in range(50)))
            await eventually(lambda: len(acked) >= 5)
    box = Outbox(tmp_path / "box")
    assert len(box) <= 50 - acked[-1]
    box.close()


async def test_every_error_is_a_device_error(tmp_path):
    async with device_of(nobody(), tmp_path) as device:
        for arguments in (("a b", 1), (7, 1), (None, 1), ("a", object()), ("a", b"x")):
            with pytest.raises(DeviceError):
                await device.send(*arguments)
        with pytest.raises(DeviceError):
            await device.send("a", 1, time=7)
