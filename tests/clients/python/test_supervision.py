"""Whatever ends a task of the client: it is tried again, or the application is told."""

import asyncio
import contextlib
import functools
import logging
import random

import pytest

from support.scripted import closed_port, friendly, jwt_of, scripted, told
from support.waiting import eventually, within
from tidegate import (
    BackoffSettings,
    BadAddress,
    CallbackFailed,
    CredentialRefused,
    Device,
    DeviceError,
    Misuse,
    NotOpen,
    OutboxError,
    Rejected,
)
from tidegate.outbox import Outbox
from tidegate.outbox_thread import OutboxThread

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)


def device_of(url, tmp_path, credential="t", **options):
    options = {"backoff": QUICK, "rng": random.Random(1)} | options
    return Device(url, credential, outbox=tmp_path / "box", **options)


def is_free(path):
    """Whether the outbox can be opened by another."""
    Outbox(path).close()
    return True


async def giving_up(_refused):
    raise CredentialRefused("the vehicle was sold")


# What can pass passes


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

    async with scripted(friendly) as gateway, device_of(gateway.url, tmp_path, provide) as device:
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
        await peer.connection.wait_closed()

    async def speak_early(peer):
        await peer.hello()
        await peer.say(nonsense)
        await peer.connection.wait_closed()

    async with scripted(speak, speak_early, friendly) as gateway:
        async with device_of(gateway.url, tmp_path) as device:
            await device.send("a", 1)
            await within(device.flush())
            assert device.failure is None


@pytest.mark.parametrize("told_ms", [10**18, -(10**18)])
async def test_times_beyond_reason_do_not_break_the_timers(tmp_path, told_ms):
    async def goaway(peer):
        await peer.greet(first_retry_ms=told_ms)
        await peer.say({"notice": {"first_retry_ms": 20}})
        await peer.connection.wait_closed()

    async with scripted(goaway) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.connected.wait())
        assert device.failure is None


@pytest.mark.parametrize("data", ["9" * 5_000, '"' + "x" * 100 + '"'])
async def test_a_command_that_cannot_be_read_is_answered_so(tmp_path, data):
    heard = []

    async def command(peer):
        await peer.greet()
        await peer.say('{"command":{"id":"7","type":"t","data":' + data + "}}")
        await peer.say({"command": {"id": "8", "type": "t", "data": 1}})
        heard.append(await peer.hear())
        await peer.connection.wait_closed()

    async with scripted(command) as gateway, device_of(gateway.url, tmp_path) as device:
        got = await within(anext(device.commands()))
        if data.startswith('"'):
            assert got.id == "7"
            return
        assert got.id == "8"
        await eventually(lambda: heard)
        if data.startswith("9"):
            assert heard[0]["result"]["id"] == "7"
            assert heard[0]["result"]["ok"] is False


async def test_commands_that_nobody_reads_are_answered_so(tmp_path):
    heard = []

    async def command(peer):
        await peer.greet()
        for n in range(1_001):
            await peer.say({"command": {"id": str(n), "type": "t"}})
        heard.append(await peer.hear())
        await peer.connection.wait_closed()

    async with scripted(command) as gateway, device_of(gateway.url, tmp_path):
        await eventually(lambda: heard)
    assert heard[0]["result"]["id"] == "1000"


@pytest.mark.parametrize("refused", ["begin", "read", "settle"])
async def test_a_disk_that_refuses_for_a_while(tmp_path, caplog, monkeypatch, refused):
    fails = []
    real = getattr(Outbox, refused)
    # One settling covers many acks, so how often there is one is not known.
    times = 1 if refused == "settle" else 3

    def refusing(self, *arguments, **more):
        if len(fails) < times:
            fails.append(1)
            raise OutboxError("outbox cannot grow: the disk is full")
        return real(self, *arguments, **more)

    async with scripted(friendly) as gateway, device_of(gateway.url, tmp_path) as device:
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
    async with scripted(friendly) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.connected.wait())
    assert "a fault of this client" in caplog.text
    assert "ZeroDivisionError" in caplog.text


# What cannot pass is told


def raising(_argument):
    raise LookupError("in the application")


@pytest.mark.parametrize("callback", ["on_ack", "on_reject"])
async def test_a_callback_that_raises_ends_the_device_and_says_so(tmp_path, caplog, callback):
    async def settle(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"reject": {"seq": 1, "error": "type"}})
        await peer.say({"ack": 1, "credit": 9})
        await peer.connection.wait_closed()

    async with scripted(settle) as gateway:
        async with device_of(gateway.url, tmp_path, **{callback: raising}) as device:
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


async def test_a_callback_that_raises_on_the_connection_left_behind_is_told_too(tmp_path):
    async def send_away(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"goaway": {"reason": "drain", "retry_ms": 3_600_000, "ticket": "t"}})
        await peer.say({"ack": 1, "credit": 9})
        await peer.connection.wait_closed()

    async with scripted(send_away) as gateway:
        async with device_of(gateway.url, tmp_path, on_ack=raising) as device:
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
            device_of(closed_port(), tmp_path, **{name: callback})


def returns_an_awaitable(number):
    return async_callback(number)


async def test_a_callback_that_returns_an_awaitable_is_told(tmp_path):
    async with scripted(friendly) as gateway:
        async with device_of(gateway.url, tmp_path, on_ack=returns_an_awaitable) as device:
            await device.send("a", 1)
            with pytest.raises(CallbackFailed, match="awaitable"):
                await within(_never_connected(device))


async def test_a_provider_that_gives_up_ends_every_wait(tmp_path):
    async with device_of(closed_port(), tmp_path, giving_up) as device:
        for wait in (device.connected.wait(), anext(device.commands()), _flush_one(device)):
            with pytest.raises(CredentialRefused, match="sold"):
                await within(wait)
        assert not device.connected
    assert is_free(tmp_path / "box")


async def _flush_one(device):
    await device.send("a", 1)
    await device.flush()


async def test_a_provider_that_gives_up_at_a_renewal(tmp_path):
    calls = []

    async def provide(_refused):
        calls.append(1)
        if len(calls) > 1:
            raise CredentialRefused("sold")
        return jwt_of(iat=0, exp=1)

    async with scripted(friendly) as gateway, device_of(gateway.url, tmp_path, provide) as device:
        with pytest.raises(CredentialRefused):
            await within(anext(device.commands()))


# Before, after, and while entering and leaving


async def test_outside_of_its_context_every_call_says_so(tmp_path):
    device = device_of(closed_port(), tmp_path)
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


async def test_who_waits_while_the_device_is_closed_hears_of_it(tmp_path):
    async with device_of(closed_port(), tmp_path) as device:
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
    async with device_of(closed_port(), tmp_path) as device:
        sending = [asyncio.create_task(device.send("a", n)) for n in range(50)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*sending, return_exceptions=True)
    stored = [each for each in results if isinstance(each, int)]
    box = Outbox(tmp_path / "box")
    assert len(box) == len(stored) == 50
    box.close()


async def test_an_open_outbox_is_said_and_nothing_is_held(tmp_path):
    async with device_of(closed_port(), tmp_path):
        second = device_of(closed_port(), tmp_path)
        with pytest.raises(OutboxError, match="is open already"):
            await second.__aenter__()
    assert is_free(tmp_path / "box")


@pytest.mark.parametrize("path", ["/nonexistent/dir/box", "/", "a\0b"])
async def test_a_path_that_cannot_be(path):
    with pytest.raises(OutboxError):
        await Device(closed_port(), "t", outbox=path).__aenter__()


@pytest.mark.parametrize("url", ["http://x/", "ws://[bad", ""])
def test_an_address_that_is_none_holds_nothing(tmp_path, url):
    with pytest.raises(BadAddress):
        device_of(url, tmp_path)
    assert not (tmp_path / "box").exists()


def test_other_misuse(tmp_path):
    import ssl

    with pytest.raises(Misuse, match="wss://"):
        device_of(closed_port(), tmp_path, ssl=ssl.create_default_context())
    with pytest.raises(Misuse, match="SSLContext"):
        device_of("wss://x/", tmp_path, ssl=True)
    with pytest.raises(Misuse, match="provider"):
        device_of(closed_port(), tmp_path, None)


async def test_leaving_is_not_stopped_by_a_cancellation_and_frees_the_file(tmp_path):
    async with scripted(friendly) as gateway:
        device = device_of(gateway.url, tmp_path)
        await device.__aenter__()
        await device.send("a", 1)
        leaving = asyncio.create_task(device.__aexit__(None, None, None))
        for _ in range(3):
            await asyncio.sleep(0)
            leaving.cancel()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
        assert is_free(tmp_path / "box")


async def test_an_error_of_the_body_is_what_leaving_raises(tmp_path):
    with pytest.raises(ZeroDivisionError):
        async with device_of(closed_port(), tmp_path, giving_up) as device:
            await eventually(lambda: device.failure)
            raise ZeroDivisionError
    assert is_free(tmp_path / "box")


async def test_a_provider_that_cannot_be_cancelled_does_not_keep_the_file(
    tmp_path, caplog, monkeypatch
):
    called, release = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("tidegate.device._STOP_TIMEOUT_S", 0.05)

    async def stubborn(_refused):
        called.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        raise CredentialRefused("at last")

    async with device_of(closed_port(), tmp_path, stubborn) as device:
        await within(called.wait())
        runner = device._runner
    assert is_free(tmp_path / "box")
    assert "does not end" in caplog.text
    release.set()
    await asyncio.wait({runner})


async def test_sends_that_are_cancelled_harm_nobody(tmp_path):
    async with device_of(closed_port(), tmp_path) as device:
        sending = [asyncio.create_task(device.send("a", n)) for n in range(10)]
        await asyncio.sleep(0)
        for each in sending[::2]:
            each.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        assert await device.send("a", "last") == 11


@pytest.mark.parametrize("bad", ["", "x" * 65, 7, None])
async def test_answers_are_checked(tmp_path, bad):
    deep = loop = []
    for _ in range(50_000):
        loop.append([])
        loop = loop[0]
    async with device_of(closed_port(), tmp_path) as device:
        with pytest.raises(Rejected, match="32 levels"):
            await device.answer("1", ok=True, data=deep)
        with pytest.raises(Rejected):
            await device.answer("1", ok=True, data=float("nan"))
        if bad != "":
            with pytest.raises(Rejected, match="id"):
                await device.answer(bad, ok=True)


async def test_flush_and_exit_leave_nothing_acknowledged_in_the_file(tmp_path):
    async with scripted(friendly) as gateway:
        for n in range(10):
            async with device_of(gateway.url, tmp_path) as device:
                await asyncio.gather(*(device.send("t", n * 20 + i) for i in range(20)))
                await within(device.flush())
                assert device.pending == 0
            box = Outbox(tmp_path / "box")
            assert len(box) == 0
            box.close()


async def test_what_was_acknowledged_before_an_exit_without_flush_is_gone_too(tmp_path):
    acked = []
    async with scripted(friendly) as gateway:
        async with device_of(gateway.url, tmp_path, on_ack=acked.append) as device:
            await asyncio.gather(*(device.send("t", n) for n in range(50)))
            await eventually(lambda: len(acked) >= 5)
    box = Outbox(tmp_path / "box")
    assert len(box) <= 50 - acked[-1]
    box.close()


async def test_every_error_is_one_of_the_project(tmp_path):
    async with device_of(closed_port(), tmp_path) as device:
        for arguments in (("a b", 1), (7, 1), (None, 1), ("a", object()), ("a", b"x")):
            with pytest.raises(DeviceError):
                await device.send(*arguments)
        with pytest.raises(DeviceError):
            await device.send("a", 1, time=7)


async def test_goaway_twice_and_made_before_broken(tmp_path):
    ends = []

    async def send_away(peer):
        await peer.greet()
        for _ in range(2):
            await peer.say({"goaway": {"reason": "drain", "retry_ms": 1, "ticket": "slot"}})
        await peer.connection.wait_closed()
        ends.append("old")

    async def take_over(peer):
        ends.append("new")
        await friendly(peer)

    async with scripted(send_away, take_over) as gateway:
        async with device_of(gateway.url, tmp_path) as device:
            await eventually(lambda: ends == ["new", "old"])
            await device.send("a", 1)
            await within(device.flush())
            assert device.connected
    assert gateway.requests[1].headers["Tidegate-Ticket"] == "slot"


async def test_a_takeover_backs_off(tmp_path):
    async def take_over(peer):
        await peer.greet()
        await peer.close(4409, {"error": "taken_over"})

    async with scripted(take_over, take_over, friendly) as gateway:
        async with device_of(gateway.url, tmp_path) as device:
            await gateway.knocks(3)
            await within(device.connected.wait())
            assert device.last_refusal.status == 4409


async def test_the_log_names_no_secret_even_at_debug(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token = jwt_of(sub="veh-1")
    echo = {"error": "credential", "detail": f"cannot believe {token}"}

    async def echoing(peer):
        await peer.greet()
        await peer.close(4401, {"error": "x", "detail": token[:60]})

    async def provide(_refused):
        return token

    from support.scripted import answer

    async with scripted(answer(401, echo), echoing, friendly) as gateway:
        async with device_of(gateway.url, tmp_path, provide) as device:
            await gateway.knocks(3)
            await within(device.connected.wait())
            assert token not in str(device.last_error)
    client = [each for each in caplog.records if not each.name.startswith("websockets.server")]
    assert client
    assert not any(token in each.getMessage() for each in client)
