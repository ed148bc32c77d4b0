import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from tidegate.answers import Meaning, read_answer, read_close
from tidegate.backoff import TOLD_MS_MAX
from tidegate.testing import unsigned_jwt


def read(status, body, headers=None):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(status, headers or {}, text, "a.secret.token")


@pytest.mark.parametrize(
    ("status", "error", "meaning"),
    [
        (401, "credential", Meaning.CREDENTIAL),
        (403, "revoked", Meaning.CREDENTIAL),
        (400, "bad_request", Meaning.POINTLESS),
        (404, "not_found", Meaning.POINTLESS),
        (426, "upgrade_required", Meaning.POINTLESS),
        (429, "device_rate", Meaning.WAIT),
        (503, "admission", Meaning.WAIT),
        (503, "something_newer", Meaning.WAIT),
        (402, "credential", Meaning.FOREIGN),
        (404, "NoSuchBucket", Meaning.FOREIGN),
        (401, "unauthorized", Meaning.FOREIGN),
        (403, "credential", Meaning.FOREIGN),
    ],
)
def test_every_refusal_of_the_contract_has_its_meaning(status, error, meaning):
    assert read(status, {"error": error}).meaning is meaning


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"error":7}', b"[" * 100_000])
@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 426, 429, 500, 502, 503, 504])
def test_any_other_answer_is_foreign(status, body):
    expected = Meaning.ABSENT if status in (502, 503, 504) else Meaning.FOREIGN
    assert read(status, body).meaning is expected


@pytest.mark.parametrize(
    ("headers", "retry_ms"),
    [
        ({"Tidegate-Retry-After-Ms": "1500", "Retry-After": "2"}, 1_500),
        ({"Retry-After": "2"}, 2_000),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "\u0663"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "9" * 12}, TOLD_MS_MAX),
        ({}, None),
    ],
)
def test_the_time(headers, retry_ms):
    assert read(503, {"error": "admission"}, headers).retry_ms == retry_ms


def test_a_header_that_is_repeated_counts_as_missing():
    headers = Headers([("Retry-After", "2"), ("Retry-After", "3"), ("Tidegate-Ticket", "t")])
    refusal = read(503, {"error": "admission"}, headers)
    assert (refusal.retry_ms, refusal.ticket) == (None, "t")


@pytest.mark.parametrize("ticket", ["a\r\nX: y", "ä", "", "x" * 257, "a b"])
def test_no_ticket_of_a_peer_can_break_the_next_request(ticket):
    assert read(503, {"error": "admission"}, {"Tidegate-Ticket": ticket}).ticket is None
    close = read_close(1013, json.dumps({"retry_ms": 1, "ticket": ticket}))
    assert close.ticket is None


def test_only_a_wellformed_ticket_is_kept():
    refusal = read(503, {"error": "admission", "reason": "rate"}, {"Tidegate-Ticket": "aZ_-9"})
    assert refusal.ticket == "aZ_-9"
    assert "aZ_-9" not in repr(refusal)


def test_a_peers_words_are_short_on_one_line_and_without_the_secret():
    refusal = read(401, {"error": "credential", "detail": "a.secret.token\n" + "x" * 1_000})
    assert refusal.detail.startswith("<credential>?xxx")
    assert len(refusal.detail) == 200


def test_a_part_of_a_credential_is_cut_out_of_a_peers_words_too():
    token = unsigned_jwt(sub="veh-1")
    assert token[:20] not in read_close(4401, f"no {token[:60]}").detail
    assert "eyJ" not in read_close(1008, json.dumps({"detail": token[:30]})).detail


@pytest.mark.parametrize(
    ("code", "reason", "meaning"),
    [
        (1012, '{"error":"drain"}', Meaning.ENDED),
        (1006, "", Meaning.ENDED),
        (1011, '{"error":"internal"}', Meaning.ENDED),
        (1013, '{"retry_ms":5,"ticket":"t"}', Meaning.WAIT),
        (1013, "", Meaning.ENDED),
        (1013, '{"retry_ms":-5}', Meaning.WAIT),
        (4401, '{"error":"credential"}', Meaning.CREDENTIAL),
        (4403, "", Meaning.CREDENTIAL),
        (4409, "", Meaning.OFFENCE),
        (1008, '{"error":"gap"}', Meaning.OFFENCE),
        (1009, "text", Meaning.OFFENCE),
    ],
)
def test_each_close_code_has_its_meaning(code, reason, meaning):
    refusal = read_close(code, reason)
    assert refusal.meaning is meaning
    assert refusal.error


def test_the_words_of_a_close():
    ours = read_close(1008, '{"error":"gap","detail":"seq 7 after 5"}')
    assert (ours.error, ours.detail) == ("gap", "seq 7 after 5")
    foreign = read_close(1001, "proxy restart")
    assert (foreign.error, foreign.detail) == ("the peer is going away", "proxy restart")
    assert str(read_close(1006, "")) == "1006 the connection was lost"


def test_a_negative_time_counts_as_zero():
    assert read_close(1013, '{"retry_ms":-5}').retry_ms is None
    assert read_close(1013, '{"retry_ms":true}').retry_ms in (None, 1)


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=50), st.text(max_size=50))
def test_no_answer_makes_the_reading_raise(status, body, retry, ticket):
    headers = {"Retry-After": retry, "Tidegate-Retry-After-Ms": retry, "Tidegate-Ticket": ticket}
    assert str(read_answer(status, headers, body, "t"))


@given(st.integers(1000, 4999), st.text(max_size=123))
def test_no_close_makes_the_reading_raise(code, reason):
    assert str(read_close(code, reason))


def test_a_header_that_is_repeated_says_nothing():
    class Repeated(dict):
        def get(self, _name):
            raise LookupError

    refusal = read(503, {"error": "admission"}, Repeated())
    assert (refusal.meaning, refusal.retry_ms, refusal.ticket) == (Meaning.WAIT, None, None)


@pytest.mark.parametrize(
    ("reason", "elsewhere"),
    [("draining", True), ("capacity", True), ("overload", True), ("rate", False), ("", False)],
)
def test_some_reasons_make_another_address_the_better_choice(reason, elsewhere):
    assert read(503, {"error": "admission", "reason": reason}).wants_elsewhere is elsewhere
