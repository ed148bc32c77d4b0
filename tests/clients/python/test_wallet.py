"""When the provider is called: within its budget, spread, and independent of the wall clock."""

import asyncio
import random

import pytest

from support.scripted import told
from support.waiting import eventually, within
from tidegate.errors import BadCredential, CredentialRefused
from tidegate.testing import FakeClock, unsigned_jwt
from tidegate.wallet import ProviderFailed, Wallet


class Issuer:
    """A provider that returns the given answers first, and then a new token each time."""

    def __init__(self, *answers, **claims):
        self.answers = list(answers)
        self.claims = claims
        self.asked = []

    async def __call__(self, refused):
        self.asked.append(refused)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            return answer
        return unsigned_jwt(jti=len(self.asked), **self.claims)


def wallet_of(issuer, clock=None, seed=1):
    return Wallet(issuer, clock or FakeClock(), random.Random(seed))


async def test_one_call_serves_many_knocks():
    issuer = Issuer()
    wallet = wallet_of(issuer)
    assert {await wallet.token_to_show() for _ in range(5)} == {wallet.token}
    assert issuer.asked == [None]


async def test_a_refusal_asks_once_and_then_waits_with_the_token_it_has():
    issuer, clock = Issuer(), FakeClock()
    wallet = wallet_of(issuer, clock)
    first = await wallet.token_to_show()
    wallet.refused("unknown key")
    second = await wallet.token_to_show()
    assert second != first
    for _ in range(20):
        wallet.refused("unknown key")
        assert await wallet.token_to_show() == second
    assert issuer.asked == [None, "unknown key"]
    clock.advance(15)
    assert await wallet.token_to_show() not in (first, second)


async def test_a_gateway_that_refuses_for_an_hour_costs_eight_calls_a_minute_at_most():
    issuer, clock = Issuer(), FakeClock()
    wallet = wallet_of(issuer, clock)
    calls = []
    for _ in range(36_000):
        clock.advance(0.1)
        await wallet.token_to_show()
        calls += [clock.now_s] * (len(issuer.asked) - len(calls))
        wallet.refused("no")
    assert 200 < len(calls) < 400
    assert all(sum(first <= each <= first + 60 for each in calls) <= 8 for first in calls)


async def test_a_provider_that_raises_is_asked_again_within_the_budget():
    issuer, clock = Issuer(*[OSError("issuer unreachable")] * 20), FakeClock(autojump=True)
    wallet = wallet_of(issuer, clock)
    calls = []
    for _ in range(20):
        with pytest.raises(ProviderFailed, match="OSError"):
            await wallet.token_to_show()
        calls.append(clock.now_s)
    assert all(sum(first <= each <= first + 60 for each in calls) <= 8 for first in calls)
    assert await wallet.token_to_show()


async def test_calls_that_waited_are_spread():
    ends = set()
    for seed in range(20):
        issuer, clock = Issuer(*[OSError()] * 2), FakeClock(autojump=True)
        wallet = wallet_of(issuer, clock, seed)
        for _ in range(2):
            with pytest.raises(ProviderFailed):
                await wallet.token_to_show()
        await wallet.token_to_show()
        ends.add(round(clock.now_s, 3))
    assert len(ends) == 20
    assert max(ends) - min(ends) > 1


async def test_a_provider_that_gives_up_or_returns_no_token_raises():
    wallet = wallet_of(Issuer(CredentialRefused("sold")))
    with pytest.raises(CredentialRefused, match="sold"):
        await wallet.token_to_show()
    wallet = wallet_of(Issuer("a.secret.token\n"))
    with pytest.raises(BadCredential) as caught:
        await wallet.token_to_show()
    assert "secret" not in str(caught.value)


async def test_a_provider_cancelled_by_others_has_failed():
    wallet = wallet_of(Issuer(asyncio.CancelledError()))
    with pytest.raises(ProviderFailed):
        await wallet.token_to_show()


async def test_our_own_cancellation_is_no_failure():
    async def never(_refused):
        await asyncio.Event().wait()

    asking = asyncio.create_task(wallet_of(never).token_to_show())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# Renewal on an open session


@pytest.mark.parametrize("clock_error_s", [-(10**9), -400, 0, 400, 10**9])
async def test_the_wall_clock_does_not_change_when_a_token_is_renewed(clock_error_s):
    issued_at = 1_790_000_000 + clock_error_s
    issuer, clock = Issuer(iat=issued_at, exp=issued_at + 300), FakeClock(autojump=True)
    wallet = wallet_of(issuer, clock)
    began = clock.now_s
    await wallet.token_to_show()
    assert await within(wallet.renewed()) == wallet.token
    assert 0.7 * 300 <= clock.now_s - began <= 0.9 * 300
    assert len(issuer.asked) == 2


async def test_renewals_of_a_fleet_are_spread():
    moments = []
    for seed in range(100):
        issuer, clock = Issuer(iat=0, exp=1_000), FakeClock(autojump=True, start_s=0.0)
        wallet = wallet_of(issuer, clock, seed)
        await wallet.token_to_show()
        await wallet.renewed()
        moments.append(clock.now_s)
    assert max(moments) - min(moments) > 150


async def test_a_provider_that_returns_the_same_token_is_called_more_and_more_rarely():
    token = unsigned_jwt(iat=0, exp=10)
    issuer, clock = Issuer(*[token] * 12), FakeClock(autojump=True)
    wallet = wallet_of(issuer, clock)
    began = clock.now_s
    await wallet.token_to_show()
    assert await within(wallet.renewed()) != token
    assert len(issuer.asked) == 13
    # 10, 20, 40, 80, 160 and then 300 s each, give or take three tenths.
    assert 0.7 * 2_110 < clock.now_s - began < 1.3 * 2_110 + 20
    assert 0.7 * 300 <= clock.waits[-1] <= 1.3 * 300


async def test_calls_for_a_token_that_stays_the_same_are_spread():
    waits = []
    for seed in range(50):
        issuer = Issuer(*[unsigned_jwt(iat=0, exp=10)] * 12)
        clock = FakeClock(autojump=True)
        wallet = wallet_of(issuer, clock, seed)
        await wallet.token_to_show()
        await wallet.renewed()
        waits.append(clock.waits[-1])
    assert min(waits) < 0.8 * 300
    assert max(waits) > 1.2 * 300


async def test_a_provider_that_fails_at_a_renewal_does_not_end_the_session(caplog):
    issuer, clock = Issuer(), FakeClock(autojump=True)
    issuer.claims = {"iat": 0, "exp": 100}
    wallet = wallet_of(issuer, clock)
    await wallet.token_to_show()
    issuer.answers = [OSError("gone"), RuntimeError("still")]
    assert await within(wallet.renewed()) == wallet.token
    assert len(issuer.asked) == 4
    assert "was not renewed" in caplog.text


async def test_a_token_without_a_span_is_renewed_once_its_lifetime_was_observed():
    issuer, clock = Issuer(exp=5_000), FakeClock()
    wallet = wallet_of(issuer, clock)
    await wallet.token_to_show()
    wallet.believed()
    renewing = asyncio.create_task(wallet.renewed())
    await eventually(lambda: clock.sleeping)
    clock.advance(86_400)
    await asyncio.sleep(0)
    assert not renewing.done(), "nobody knows when it ends"
    renewing.cancel()
    await asyncio.wait({renewing})
    wallet.expired("expired")
    await wallet.token_to_show()
    assert issuer.asked == [None, "expired"]
    renewing = asyncio.create_task(wallet.renewed())
    await eventually(lambda: clock.sleeping)
    clock.advance(0.95 * 86_400)
    assert await told(renewing) is None


async def test_an_early_end_of_a_session_does_not_replace_the_span_of_a_token():
    issuer, clock = Issuer(iat=0, exp=3_600), FakeClock()
    wallet = wallet_of(issuer, clock)
    await wallet.token_to_show()
    clock.advance(5)
    wallet.expired("expired")
    await wallet.token_to_show()
    assert issuer.asked == [None, "expired"]
    renewing = asyncio.create_task(wallet.renewed())
    await eventually(lambda: clock.sleeping)
    assert clock.waits[-1] > 0.7 * 3_590, "not 0.7 of the 5 s after which it was closed"
    renewing.cancel()
    await asyncio.wait({renewing})
