import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stream.lanes.batch import Kind, Verdict
from gateway.stream.lanes.pubacks import read_answer

RETRY_REASONS = {
    "partial",
    "batch_size",
    "timeout",
    "disconnected",
    "no_responders",
    "conflict",
    "absent",
    "limits",
    "error",
}
"""All values of a metric's label."""


def read(document, kind=Kind.SINGLE, messages=1):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_answer(text, kind=kind, stream="EVENTS", messages=messages)


def error(code):
    return {"error": {"code": 400, "err_code": code, "description": "x"}}


def test_a_puback_of_our_stream_is_stored():
    assert read({"stream": "EVENTS", "seq": 1}).verdict is Verdict.STORED
    duplicate = read({"stream": "EVENTS", "seq": 7, "duplicate": True})
    assert (duplicate.verdict, duplicate.stored_at) == (Verdict.DUPLICATE, 7)


def test_a_puback_of_another_stream_is_not_what_we_promised():
    assert read({"stream": "OTHER", "seq": 1}).verdict is Verdict.THROTTLED


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (10158, Verdict.AMBIGUOUS),
        (10176, Verdict.PARTIAL),
        (10201, Verdict.PARTIAL),
        (10174, Verdict.PARTIAL),
        (10208, Verdict.PARTIAL),
        (10054, Verdict.REFUSED),
        (10097, Verdict.REFUSED),
        (10077, Verdict.THROTTLED),  # maximum messages exceeded
        (10047, Verdict.THROTTLED),  # insufficient storage
        (99999, Verdict.THROTTLED),
    ],
)
def test_error_codes(code, verdict):
    answer = read(error(code), kind=Kind.ATOMIC, messages=3)
    assert answer.verdict is verdict
    if verdict is not Verdict.REFUSED:
        assert answer.reason in RETRY_REASONS


def test_batches_say_how_many_they_stored():
    whole = {"stream": "EVENTS", "seq": 9, "batch": "b", "count": 3}
    assert read(whole, Kind.ATOMIC, 3).verdict is Verdict.STORED
    assert read(whole, Kind.FAST, 3).verdict is Verdict.STORED
    assert read(whole, Kind.ATOMIC, 4).verdict is Verdict.AMBIGUOUS, "of another batch"
    cut = read(whole, Kind.FAST, 5)
    assert (cut.verdict, cut.stored_count) == (Verdict.PARTIAL, 3)
    again = read({**whole, "duplicate": True}, Kind.FAST, 5)
    assert (again.verdict, again.stored_count) == (Verdict.PARTIAL, 0)


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        ({"stream": "EVENTS", "seq": 9}, Verdict.STORED),
        ({"stream": "EVENTS", "seq": 9, "duplicate": True}, Verdict.PARTIAL),
        (error(10070), Verdict.PARTIAL),  # wrong last message id
        (error(10077), Verdict.AMBIGUOUS),  # maximum messages exceeded
        (error(10054), Verdict.AMBIGUOUS),  # only the last message is known to be refused
    ],
)
def test_only_a_puback_of_its_last_message_proves_that_a_linked_batch_is_stored(document, verdict):
    answer = read(document, Kind.LINKED, 3)
    assert (answer.verdict, answer.stored_count) == (verdict, 0)
    assert answer.reason in RETRY_REASONS | {""}


def test_a_flow_message_is_not_an_answer():
    assert read({"type": "ack", "seq": 5, "msgs": 10}, Kind.FAST, 20) is None


@pytest.mark.parametrize(
    ("description", "allowed"),
    [("atomic publish batch is too large: 1000", 1_000), ("it is too large", 2_000)],
)
def test_a_batch_too_large_says_what_the_server_takes(description, allowed):
    document = {"error": {"code": 400, "err_code": 10199, "description": description}}
    answer = read(document, Kind.ATOMIC, 4_000)
    assert (answer.verdict, answer.messages_max) == (Verdict.TOO_LARGE, allowed)
    assert answer.reason in RETRY_REASONS


@given(st.binary(max_size=60))
def test_an_answer_that_is_no_json_settles_nothing(noise):
    answer = read(noise)
    assert answer is None or answer.verdict not in (Verdict.STORED, Verdict.REFUSED)
