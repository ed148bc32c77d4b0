"""Facts about revocations on the wire between nodes and on disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.revocation import Revocation
from gateway.cluster.revocations import parse_fact, render_fact

TIMES = st.floats(0, 1e12)


@given(TIMES, TIMES, st.booleans(), st.text(min_size=1))
def test_a_fact_is_read_as_it_was_written(until, at, lifted, jti):
    for fact in (
        Revocation(until, jti=jti, at=at, lifted=lifted),
        Revocation(until, tenant="t", device="veh-1", at=at, lifted=lifted),
    ):
        assert parse_fact(render_fact(fact)) == fact


def test_a_fact_of_an_older_version_has_no_time_of_its_own():
    fact = parse_fact('{"until": 5, "jti": "j", "tenant": "", "device": ""}')
    assert fact == Revocation(5.0, jti="j")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '"x"',
        "{}",
        '{"until": 1}',
        '{"until": "soon", "jti": "j"}',
        '{"until": Infinity, "jti": "j"}',
        '{"until": NaN, "jti": "j"}',
        '{"until": 1, "jti": "j", "at": NaN}',
        '{"until": 1' + "0" * 400 + ', "jti": "j"}',
        '{"until": 1, "jti": "j", "tenant": "t", "device": "d"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_fact_is_none(text):
    assert parse_fact(text) is None
