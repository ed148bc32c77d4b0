import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.credentials import CallBudget, check_token, static_credential, token_span_s
from tidegate.errors import BadCredential, CredentialRefused
from tidegate.testing import unsigned_jwt


async def test_a_static_credential_is_not_returned_again_once_it_was_refused():
    provide = static_credential("a.b.c")
    assert await provide(None) == "a.b.c"
    with pytest.raises(CredentialRefused, match="expired"):
        await provide("expired")


@pytest.mark.parametrize(
    ("claims", "span_s"),
    [
        ({"iat": 1_000, "exp": 4_600}, 3_600),
        ({"nbf": 1_000.5, "exp": 1_001}, 0.5),
        ({"iat": 1_000, "nbf": 0, "exp": 1_060}, 60),
        ({"exp": 4_600}, None),
        ({"iat": 1_000}, None),
        ({"iat": 4_600, "exp": 1_000}, None),
        ({"iat": "soon", "exp": 1_000}, None),
        ({"iat": True, "exp": 1_000}, None),
        ({"iat": 0, "exp": math.inf}, None),
        ({"iat": 0, "exp": math.nan}, None),
        ({"iat": 0, "exp": 10**400}, None),
        ({"iat": 0, "exp": 2**61}, None),
    ],
)
def test_the_span_comes_from_the_claims_of_the_token(claims, span_s):
    assert token_span_s(unsigned_jwt(**claims)) == span_s


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "a.W10.c", "a.%.c", f"a.{'Ww' * 9_000}.c"])
def test_a_token_that_is_not_a_jwt_has_no_span(token):
    assert token_span_s(token) is None


@given(st.text())
def test_no_token_makes_the_span_raise(token):
    token_span_s(token)


@pytest.mark.parametrize(
    "token", ["", "secret.to.ken\n", "secret.to.ken ", "secret to.ken", "secrät", "a\x00b", None, 7]
)
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(BadCredential) as caught:
        check_token(token)
    assert "secret" not in str(caught.value)
    if isinstance(token, str):
        with pytest.raises(BadCredential):
            static_credential(token)


def test_the_error_names_the_place_of_the_bad_character():
    with pytest.raises(BadCredential, match=r"'\\n' at its end"):
        check_token("a.b.c\n")
    with pytest.raises(BadCredential, match="' ' at 1"):
        check_token("a b")


@given(st.lists(st.floats(0, 30), max_size=200))
def test_never_more_than_eight_calls_in_any_minute(pauses):
    budget, now, calls = CallBudget(), 1_000.0, []
    for pause in pauses:
        now += pause
        now += budget.delay_s(now)
        assert budget.delay_s(now) == pytest.approx(0, abs=1e-6)
        budget.take(now)
        calls.append(now)
    for first in calls:
        assert sum(first <= call <= first + 60 for call in calls) <= 8
    assert len(calls) == len(pauses)


def test_after_a_calm_time_two_calls_are_free():
    budget = CallBudget()
    for _ in range(2):
        assert budget.delay_s(5.0) == 0
        budget.take(5.0)
    assert 10 < budget.delay_s(5.0) < 11
