import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.session.errors import REASON_MAX_BYTES, PolicyViolation, close_reason


@given(st.text(max_size=400))
def test_a_close_reason_always_fits_its_frame_and_is_json(detail):
    reason = close_reason("schema", detail)
    assert len(reason.encode()) <= REASON_MAX_BYTES
    document = json.loads(reason)
    assert document["error"] == "schema"
    assert detail.startswith(document.get("detail", ""))


def test_an_offence_says_what_and_how():
    offence = PolicyViolation("gap", "expected seq 3, got 5")
    assert offence.close_code == 1008
    assert json.loads(offence.reason) == {"error": "gap", "detail": "expected seq 3, got 5"}
