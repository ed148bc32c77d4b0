import http.client
import io
import json
from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.outcome import Refuse
from gateway.edge.errors import Refusal
from gateway.edge.opening.refusal import come_back, render_come_back, render_refusal


class Wire:
    """What http.client wants of a socket."""

    def __init__(self, data):
        self.data = data

    def makefile(self, _mode):
        return io.BytesIO(self.data)


def parsed(refusal):
    """As the standard library's own client reads it."""
    response = http.client.HTTPResponse(Wire(render_refusal(refusal)))
    response.begin()
    return response


def test_a_503_has_its_time_in_header_and_body():
    response = parsed(
        Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "admission", reason="rate", retry_ms=8_201)
    )
    assert response.status == 503
    assert response.headers["Retry-After"] == "9"
    assert response.headers["Tidegate-Retry-After-Ms"] == "8201"
    body = json.loads(response.read())
    assert (body["error"], body["reason"], body["retry_ms"]) == ("admission", "rate", 8_201)


def test_a_401_challenges_and_a_426_names_the_protocol():
    refused = parsed(Refusal(HTTPStatus.UNAUTHORIZED, "credential", detail='a "quoted"\r\nX: y'))
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert json.loads(refused.read())["detail"] == 'a "quoted"\r\nX: y'
    assert "X" not in refused.headers
    assert (
        parsed(Refusal(HTTPStatus.UPGRADE_REQUIRED, "upgrade_required")).headers["Upgrade"]
        == "websocket"
    )


@given(
    st.sampled_from(["rate", "overload"]),
    st.floats(0, 100_000),
    st.sampled_from(["", "AQUBog5I4ygAJ15g5_c4x10MIIxL_xW9-05APtsd4Q"]),
)
def test_both_ways_to_render_a_slot_make_the_same_answer(reason, retry_s, ticket):
    outcome = Refuse(reason, retry_s, ticket)
    assert render_come_back(outcome) == render_refusal(come_back(outcome))
    assert come_back(outcome).retry_ms >= retry_s * 1000
