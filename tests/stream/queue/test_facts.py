"""Entries and facts of queued commands."""

import json

import pytest
from msgspec import UNSET, Raw

from gateway.stream.errors import EntryError
from gateway.stream.queue.facts import (
    FINAL,
    LEGAL,
    Fact,
    encode,
    outcome_of,
    read_entry,
    read_fact,
    rfc3339,
    unix_time,
)
from gateway.stream.queue.status import Status
from tidegate.wire.frames import Result

GOOD = {"id": "c-1", "type": "door.lock", "data": {"doors": 4}, "expires": "2026-11-26T04:00:00Z"}


def test_an_entry_is_read_with_the_bytes_of_its_data():
    entry = read_entry(
        b'{"id":"c-1","type":"t","data":{"n":1.50},"expires":"2026-11-26T04:00:00+01:00"}'
    )
    assert (entry.id, entry.type, bytes(entry.data)) == ("c-1", "t", b'{"n":1.50}')
    assert entry.expires_at == unix_time("2026-11-26T03:00:00Z")


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def test_an_entry_nests_as_deep_as_every_client_can_read():
    assert read_entry(json.dumps({**GOOD, "data": nested(32)}).encode())


@pytest.mark.parametrize(
    ("change", "names", "says"),
    [
        ({"id": "a.b"}, "", "id"),
        ({"id": 7}, "", "id"),
        ({"type": "no good"}, "c-1", "type"),
        ({"expires": "soon"}, "c-1", "soon"),
        ({"expires": "2026-11-26T04:00:00"}, "c-1", "time zone"),
        ({"expires": None}, "c-1", "expires"),
        ({"data": nested(33)}, "c-1", "nests deeper than 32 levels"),
    ],
)
def test_an_entry_that_no_device_can_be_given_is_named_as_far_as_it_names_itself(
    change, names, says
):
    with pytest.raises(EntryError, match=says) as refused:
        read_entry(json.dumps({**GOOD, **change}).encode())
    assert refused.value.id == names


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"id":"x"\xff}', b"[" * 100_000])
def test_an_entry_that_is_no_object_is_an_error(data):
    with pytest.raises(EntryError) as refused:
        read_entry(data)
    assert refused.value.id == ""


def test_a_fact_is_written_without_what_it_does_not_say():
    fact = Fact(Status.SENT, "2026-11-26T04:00:00Z", "node", 7, receipts=True, entry=12)
    assert json.loads(encode(fact)) == {
        "status": "sent",
        "time": "2026-11-26T04:00:00Z",
        "node": "node",
        "fence": 7,
        "receipts": True,
        "entry": 12,
    }
    assert read_fact(encode(fact)) == fact


def test_a_final_status_is_followed_by_none_and_every_other_can_end():
    assert {status for status, following in LEGAL.items() if not following} == FINAL
    assert set(LEGAL) == {None, *Status}
    for status in (Status.SENT, Status.DELIVERED):
        assert LEGAL[status] >= FINAL
    assert Status.DELIVERED not in LEGAL[Status.QUEUED]


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Result("c", True), (Status.DONE, "")),
        (Result("c", True, Raw(b'{"error":"unknown"}')), (Status.DONE, "")),
        (Result("c", False), (Status.FAILED, "")),
        (Result("c", False, UNSET), (Status.FAILED, "")),
        (Result("c", False, Raw(b'{"error":"jammed"}')), (Status.FAILED, "jammed")),
        (Result("c", False, Raw(b'{"error":"unknown"}')), (Status.UNKNOWN, "unknown")),
        (Result("c", False, Raw(b'{"error":"expired"}')), (Status.EXPIRED, "expired")),
        (Result("c", True, Raw(b'{"error":"expired"}')), (Status.DONE, "")),
        (Result("c", False, Raw(b'{"error":7}')), (Status.FAILED, "")),
        (Result("c", False, Raw(b'{"error":"%s"}' % (b"x" * 999))), (Status.FAILED, "x" * 64)),
        (Result("c", False, Raw(b'"unknown"')), (Status.FAILED, "")),
    ],
)
def test_a_result_means_an_outcome(result, outcome):
    assert outcome_of(result) == outcome


def test_times_are_written_and_read_in_utc():
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500Z"
    assert unix_time(rfc3339(1_700_000_000.25)) == 1_700_000_000.25
