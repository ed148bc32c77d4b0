"""What the answer to a request means."""

import json

import pytest

from gateway.stream.errors import NotAnswered
from gateway.stream.queue.requests import NO_DATA, read_outcome, request_body


def test_a_request_has_type_and_data_as_they_were_given():
    body = request_body("door.lock", b'{ "n": 1.0 }')
    assert json.loads(body) == {"type": "door.lock", "data": {"n": 1.0}}
    assert b'{ "n": 1.0 }' in body


@pytest.mark.parametrize(
    ("answer", "outcome", "data"),
    [
        ({"id": "a", "ok": True, "data": 1}, "done", 1),
        ({"id": "a", "ok": True, "data": ""}, "done", ""),
        ({"id": "a", "ok": True}, "done", None),
        ({"id": "a", "ok": False, "data": {"error": "jammed"}}, "failed", {"error": "jammed"}),
        ({"id": "a", "ok": False, "data": ["not_understood"]}, "failed", ["not_understood"]),
        ({"ok": False, "data": {"error": "not_understood"}}, "not_understood", ...),
        ({"error": "busy", "detail": "it does not read"}, "busy", NO_DATA),
    ],
)
def test_the_outcome_of_each_answer(answer, outcome, data):
    told = read_outcome(json.dumps(answer).encode())
    assert told.outcome == outcome
    assert told.data is data if data is NO_DATA else data is ... or told.data == data
    assert told.detail == answer.get("detail", "")


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_an_answer_of_somebody_else_is_said(answer):
    with pytest.raises(NotAnswered, match="cannot be read"):
        read_outcome(answer)
