"""Refusals, of gateways and of what stands in front of them: no device gives up too early."""

import asyncio
import logging
import random
from dataclasses import replace

import pytest

from support.scripted import (
    ScriptedGateway,
    answer,
    device_of,
    friendly,
    nobody,
    scripted,
    told,
)
from support.waiting import eventually, within
from tidegate import BadCredential, Unreachable
from tidegate.testing import refusals, unsigned_jwt

PAGE = "<html><h1>nginx</h1></html>"
REFUSED = answer(401, {"error": "credential", "detail": "unknown key"})


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
    ids=lambda each: f"{each.status}-{bytes(each.body)[:12]!r}",
)
async def test_an_answer_that_no_gateway_gave_is_a_failed_attempt(tmp_path, foreign):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return "t"

    async with scripted(foreign, foreign, foreign, friendly) as gateway:
        async with device_of(gateway, tmp_path, provide) as device:
            await device.send("a", 1)
            await within(device.flush())
            assert (device.failure, device.knocks.knocks) == (None, 4)
            assert device.last_refusal.status == foreign.status
    assert asked == [None]
    assert len(gateway.knocks) == 4, "no redirect is followed"


class RefusingFor(ScriptedGateway):
    """Refuses every knock for a while, and notes when they came."""

    def __init__(self, refusal, seconds):
        super().__init__(friendly)
        self._refusal = refusal
        self._began = self.clock.now_s
        self._seconds = seconds
        self.times = []

    def _reply(self, knock):
        self.times.append(self.clock.now_s - self._began)
        return self._refusal if self.times[-1] < self._seconds else super()._reply(knock)


@pytest.mark.parametrize("status", [404, 403, 401, 503])
async def test_a_page_for_ten_seconds_costs_few_knocks(tmp_path, status):
    async with RefusingFor(answer(status, PAGE), 10) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
    assert 2 <= sum(time < 10 for time in gateway.times) <= 12


async def test_a_refused_credential_is_asked_for_with_the_reason(tmp_path):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return f"token-{len(asked)}"

    async with scripted(REFUSED, friendly) as gateway:
        async with device_of(gateway, tmp_path, provide) as device:
            await within(device.connected.wait())
            assert device.last_refusal.detail == "unknown key"
    assert asked == [None, "unknown key"]
    assert gateway.tokens == ["token-1", "token-2"]


async def test_a_gateway_that_learns_a_key_late_costs_two_calls_and_a_growing_wait(tmp_path):
    """The issuer rotated its key, and the gateway does not know the new one for ten seconds."""
    calls = []

    async def provide(_refused):
        calls.append(gateway.clock.now_s - 1_000)
        return f"token-{len(calls)}"

    async with RefusingFor(REFUSED, 10) as gateway:
        async with device_of(gateway, tmp_path, provide) as device:
            await within(device.connected.wait())
    assert sum(call < 10 for call in calls) <= 2
    assert sum(time < 10 for time in gateway.times) <= 12


URL_A, URL_B = "ws://a.test/v1/device", "ws://b.test/v1/device"


async def test_if_every_address_is_no_endpoint_the_device_ends_and_every_wait_says_so(tmp_path):
    async with scripted(refusals.not_found()) as gateway:
        async with device_of(gateway, tmp_path, url=[URL_A, URL_B]) as device:
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
        assert {knock.url for knock in gateway.knocks} == {URL_A, URL_B}
        assert len(gateway.knocks) == 2


async def _send_and_flush(device):
    await device.send("a", 1)
    await device.flush()


async def test_an_address_that_is_no_endpoint_is_passed_over_for_one_that_is(tmp_path):
    async with scripted(at={URL_A: refusals.not_found(), URL_B: friendly}) as gateway:
        async with device_of(gateway, tmp_path, url=[URL_A, URL_B]) as device:
            await within(device.connected.wait())
            assert device.failure is None


@pytest.mark.parametrize("seed", range(4))
async def test_the_address_that_answers_is_kept(tmp_path, seed):
    slot = refusals.admission(1, ticket="slot")
    async with scripted(slot, slot, friendly, at={URL_A: None}) as gateway:
        environment = replace(gateway.environment, rng=random.Random(seed))
        async with device_of(
            gateway, tmp_path, url=[URL_A, URL_B], environment=environment
        ) as device:
            await within(device.connected.wait())
    # A refusal with a slot is an answer: the next knock goes to the same address.
    answered = [knock.ticket for knock in gateway.knocks if knock.url == URL_B]
    assert answered == [None, "slot", "slot"]
    assert len(gateway.knocks) <= 4


async def test_the_device_shows_its_state_and_warns_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    async with scripted(
        answer(500, PAGE), answer(500, PAGE), answer(500, PAGE), friendly
    ) as gateway:
        async with device_of(gateway, tmp_path) as device:
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
        async with device_of(gateway, tmp_path) as device:
            await gateway.knocked(5)
            await within(device.connected.wait())
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert any("not connected after 3 attempts: closed: 1011" in each for each in warnings)


async def test_the_reason_why_no_gateway_answers_is_shown(tmp_path):
    async with device_of(nobody(), tmp_path) as device:
        await eventually(lambda: device.last_error)
        assert device.last_error == "cannot reach ws://gateway.test/v1/device: Connection refused"


async def test_a_closed_refusal_is_a_refusal(tmp_path):
    async def refuse(peer):
        await peer.close(1013, {"retry_ms": 1, "ticket": "slot"})

    async with scripted(refuse, friendly) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
            assert device.knocks.refusals == 1
    assert gateway.knocks[1].ticket == "slot"


@pytest.mark.parametrize("credential", ["a.b.c\n", "", "a b"])
def test_a_static_token_that_no_header_can_carry_is_refused_by_the_constructor(
    tmp_path, credential
):
    with pytest.raises(BadCredential):
        device_of(nobody(), tmp_path, credential)
    assert not (tmp_path / "box").exists()


async def test_a_provider_that_returns_no_token_ends_the_device(tmp_path):
    async def provide(_refused):
        return "a.secret.token\n"

    async with scripted(friendly) as gateway:
        async with device_of(gateway, tmp_path, provide) as device:
            with pytest.raises(BadCredential):
                await within(device.connected.wait())
    assert not gateway.knocks


async def test_an_expired_session_asks_for_a_credential_and_reconnects(tmp_path):
    asked = []

    async def provide(refused):
        asked.append(refused)
        return unsigned_jwt(exp=1, jti=len(asked))

    async def expire(peer):
        await peer.greet()
        await peer.close(4401, {"error": "credential", "detail": "expired"})

    async with scripted(expire, friendly) as gateway:
        async with device_of(gateway, tmp_path, provide) as device:
            await gateway.knocked(2)
            await within(device.connected.wait())
    # The token's span is known from now on, and is short: more questions may have followed.
    assert asked[:2] == [None, "expired"]
