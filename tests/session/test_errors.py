import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.session import errors
from gateway.session.errors import REASON_MAX_BYTES, PolicyViolation, close_reason


@given(st.text(max_size=400))
@example("x" * 400)
@example("\x00" * 30)
def test_a_close_reason_always_fits_its_frame_and_is_json(detail):
    reason = close_reason("schema", detail)
    assert len(reason.encode()) <= REASON_MAX_BYTES
    document = json.loads(reason)
    assert document["error"] == "schema"
    assert detail.startswith(document.get("detail", ""))


def test_an_offence_names_its_error_and_the_value():
    offence = PolicyViolation("gap", "expected seq 3, got 5")
    assert offence.close_code == 1008
    assert json.loads(offence.reason) == {"error": "gap", "detail": "expected seq 3, got 5"}


@pytest.mark.parametrize(
    ("offence", "code", "error"),
    [
        (errors.UnsupportedData("binary"), 1003, "binary"),
        (errors.DataError("utf8"), 1007, "utf8"),
        (errors.PolicyViolation("gap"), 1008, "gap"),
        (errors.InternalError(), 1011, "internal"),
        (errors.CredentialExpired(), 4401, "credential"),
        (errors.Revoked(), 4403, "revoked"),
        (errors.TakenOver(), 4409, "taken_over"),
    ],
)
def test_each_cause_has_its_close_code(offence, code, error):
    assert (offence.close_code, offence.error) == (code, error)
