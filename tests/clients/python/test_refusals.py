"""What stands between a device and its gateway answers for reasons of its own: nobody gives up."""

import asyncio
import logging
import random

import pytest

from support.fake_clock import JumpingClock
from support.scripted import ScriptedGateway, answer, closed_port, friendly, jwt_of, scripted, told
from support.waiting import eventually, within
from tidegate import BackoffSettings, BadCredential, Clock, Device, Unreachable

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)
PAGE = "<html><h1>nginx</h1></html>"
REFUSED = answer(401, {"error": "credential", "detail": "unknown key"})


def device_of(url, tmp_path, credential="t", **options):
    options = {"backoff": QUICK, "rng": random.Random(1)} | options
    return Device(url, credential, outbox=tmp_path / "box", **options)


@pytest.mark.parametrize(
    "foreign",
    [
        answer(302, "", Location="https://portal.example/login"),
        answer(302, "", Location="ws://portal.example/"),
        *(
            answer(status, PAGE)
            for status in (200, 400, 401, 403, 404, 426, 429, 500, 502, 503, 504)
        ),
        answer(404, {"error": "NoSuchKey"}),
        answer(503, {"error": "admission"}, Retry_After="9" * 400),
    ],
    ids=lambda each: f"{each.status_code}-{bytes(each.body)[:12]!r}",
)
async def test_an_answer_that_is_not_ours_is_a_failed_attempt(tmp_path, foreign):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return "t"

    async with scripted(foreign, foreign, foreign, friendly) as gateway:
        async with device_of(gateway.url, tmp_path, provide) as device:
            await device.send("a", 1)
            await within(device.flush())
            assert (device.failure, device.knocks.knocks) == (None, 4)
            assert device.last_refusal.status == foreign.status_code
    assert asked == [None]
    assert len(gateway.requests) == 4, "no redirect is followed"


@pytest.mark.parametrize("status", [404, 403, 401, 503])
async def test_a_page_for_ten_seconds_costs_few_knocks(tmp_path, status):
    clock = JumpingClock(only="tidegate-connect")
    began = clock.now_s
    knocks = []

    class Balancer(ScriptedGateway):
        def _process(self, connection, request):
            knocks.append(clock.now_s - began)
            if clock.now_s - began < 10:
                return answer(status, PAGE)
            return super()._process(connection, request)

    gateway = Balancer(friendly)
    await gateway.start()
    try:
        async with device_of(
            gateway.url,
            tmp_path,
            backoff=BackoffSettings(),
            clock=Clock(clock.monotonic, clock.sleep),
        ) as device:
            await within(device.connected.wait())
        assert 2 <= sum(knock < 10 for knock in knocks) <= 12
    finally:
        await gateway.stop()


async def test_a_refused_credential_is_asked_for_with_the_reason(tmp_path):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return f"token-{len(asked)}"

    async with scripted(REFUSED, friendly) as gateway:
        async with device_of(gateway.url, tmp_path, provide) as device:
            await within(device.connected.wait())
            assert device.last_refusal.detail == "unknown key"
    assert asked == [None, "unknown key"]
    assert gateway.tokens == ["token-1", "token-2"]


async def test_a_gateway_that_learns_a_key_late_costs_two_calls_and_a_growing_wait(tmp_path):
    """The issuer rotated its key, the gateway does not know it for ten seconds."""
    clock, calls, knocks = JumpingClock(only="tidegate-connect"), [], []
    began = clock.now_s

    async def provide(_refused):
        calls.append(clock.now_s - began)
        return f"token-{len(calls)}"

    class Late(ScriptedGateway):
        def _process(self, connection, request):
            knocks.append(clock.now_s - began)
            return REFUSED if clock.now_s - began < 10 else super()._process(connection, request)

    gateway = Late(friendly)
    await gateway.start()
    try:
        async with device_of(
            gateway.url, tmp_path, provide,
            backoff=BackoffSettings(), clock=Clock(clock.monotonic, clock.sleep),
        ) as device:  # fmt: skip
            await within(device.connected.wait())
    finally:
        await gateway.stop()
    assert sum(call < 10 for call in calls) <= 2
    assert sum(knock < 10 for knock in knocks) <= 12


async def test_no_address_is_a_gateway_s_and_every_wait_says_so(tmp_path):
    ours = answer(404, {"error": "not_found", "detail": "devices use /v1/device"})
    async with scripted(ours) as gateway, scripted(ours) as other:
        async with device_of([gateway.url, other.url], tmp_path) as device:
            waits = [
                asyncio.create_task(wait)
                for wait in (
                    _send_and_flush(device),
                    device.connected.wait(),
                    anext(device.commands()),
                )
            ]
            for wait in waits:
                assert isinstance(await told(wait), Unreachable)
            assert isinstance(device.failure, Unreachable)
            with pytest.raises(Unreachable):
                await device.send("a", 2)
        assert len(gateway.requests) == len(other.requests) == 1


async def _send_and_flush(device):
    await device.send("a", 1)
    await device.flush()


async def test_one_address_of_two_that_is_none_is_passed_over(tmp_path):
    ours = answer(404, {"error": "not_found"})
    async with scripted(ours) as wrong, scripted(friendly) as right:
        async with device_of([wrong.url, right.url], tmp_path) as device:
            await within(device.connected.wait())
            assert device.failure is None


async def test_the_address_that_lives_is_kept(tmp_path):
    slot = answer(
        503, {"error": "admission", "reason": "rate"},
        Tidegate_Retry_After_Ms="1", Tidegate_Ticket="slot",
    )  # fmt: skip
    async with scripted(slot, slot, friendly) as gateway:
        urls = [closed_port(), gateway.url]
        for seed in range(4):
            async with device_of(urls, tmp_path, rng=random.Random(seed)) as device:
                await within(device.connected.wait())
                refusals = device.knocks.refusals
            # A refusal with a slot is an answer: the next knock goes to where it came from.
            assert device.knocks.knocks - refusals <= 2
    assert [each.headers.get("Tidegate-Ticket") for each in gateway.requests[:3]] == [
        None, "slot", "slot",
    ]  # fmt: skip


async def test_the_device_says_how_it_is_doing(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    async with scripted(
        answer(500, PAGE), answer(500, PAGE), answer(500, PAGE), friendly
    ) as gateway:
        async with device_of(gateway.url, tmp_path) as device:
            assert not device.connected
            assert device.last_refusal is None
            await within(device.connected.wait())
            assert device.connected.is_set()
            assert "500" in device.last_error
            assert device.knocks.refusals == 3
    warnings = [record.getMessage() for record in caplog.records]
    assert any("not connected after 3 attempts" in warning for warning in warnings)
    assert any("connected again" in warning for warning in warnings)


async def test_sessions_that_break_again_and_again_are_warned_of(tmp_path, caplog):
    async def flap(peer):
        await peer.greet()
        await peer.close(1011, {"error": "internal"})

    async with scripted(flap, flap, flap, flap, friendly) as gateway:
        async with device_of(gateway.url, tmp_path) as device:
            await gateway.knocks(5)
            await within(device.connected.wait())
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert any("not connected after 3 attempts: closed: 1011" in each for each in warnings)


async def test_nobody_there_is_said_with_its_reason(tmp_path):
    async with device_of(closed_port(), tmp_path) as device:
        await eventually(lambda: device.last_error)
        assert "cannot reach ws://127.0.0.1:1/v1/device" in device.last_error
        assert "refused" in device.last_error


async def test_a_closed_refusal_is_a_refusal(tmp_path):
    async def refuse(peer):
        await peer.close(1013, {"retry_ms": 1, "ticket": "slot"})

    async with scripted(refuse, friendly) as gateway:
        async with device_of(gateway.url, tmp_path) as device:
            await within(device.connected.wait())
            assert device.knocks.refusals == 1
    assert gateway.requests[1].headers["Tidegate-Ticket"] == "slot"


@pytest.mark.parametrize("credential", ["a.b.c\n", "", "a b"])
def test_a_token_no_header_can_carry_is_refused_where_it_is_given(tmp_path, credential):
    with pytest.raises(BadCredential):
        device_of(closed_port(), tmp_path, credential)
    assert not (tmp_path / "box").exists()


async def test_a_provider_that_gives_none_is_the_application_s_fault(tmp_path):
    async def provide(_refused):
        return "a.secret.token\n"

    async with scripted(friendly) as gateway:
        async with device_of(gateway.url, tmp_path, provide) as device:
            with pytest.raises(BadCredential):
                await within(device.connected.wait())
    assert not gateway.requests


async def test_an_expired_session_asks_and_comes_back(tmp_path):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return jwt_of(exp=1, jti=len(asked))

    async def expire(peer):
        await peer.greet()
        await peer.close(4401, {"error": "credential", "detail": "expired"})

    async with scripted(expire, friendly) as gateway:
        async with device_of(gateway.url, tmp_path, provide) as device:
            await gateway.knocks(2)
            await within(device.connected.wait())
    assert asked == [None, "expired"]
