"""The truth among stored facts: the one with the highest fence, however late others are stored."""

import time

import pytest

from gateway.node.presence import reading as presence_reading
from gateway.node.presence.reading import may_be_late, truth_now
from gateway.session.presence import CONNECTED, LOST, NODE_LOST, TAKEN_OVER, Fact, payload_of

AT = 1_000_000.0


def fact(fence, *, online=True, cause=CONNECTED, at=AT, device="veh-1"):
    return Fact("default", device, online, f"s{fence}", fence, cause, "node", at)


def ended(fence, cause, **more):
    return fact(fence, online=False, cause=cause, **more)


@pytest.mark.parametrize(
    ("last", "stored_at", "late"),
    [
        (fact(1), AT + 2, False),
        (fact(1), AT + 60, True),
        (ended(1, LOST), AT, False),
        (ended(1, "closed 1000"), AT + 9, False),
        (ended(1, "closed 1000"), AT + 11, True),
        (ended(1, TAKEN_OVER), AT, True),
        (ended(1, NODE_LOST), AT, True),
    ],
)
def test_which_last_facts_may_hide_a_newer_one(last, stored_at, late):
    assert may_be_late(last, stored_at) is late


@pytest.fixture
def reads():
    """The filters of each read."""
    return []


@pytest.fixture
def stream(monkeypatch, reads):
    """Facts in stream order, each with the time at which it was stored."""
    stored = []

    async def stored_now(_link, _stream, subjects, make, *, since=None, last_of_each=False):
        reads.append(list(subjects))
        chosen = [
            (each, at)
            for each, at in stored
            if (subjects == ["presence.*.*"] or each.subject in subjects)
            and (since is None or at >= since.timestamp())
        ]
        if last_of_each:
            chosen = list({each.subject: (each, at) for each, at in chosen}.values())
        for each, at in chosen:
            yield make(each.subject, b"", payload_of(each), 1, int(at * 1e9))

    monkeypatch.setattr(presence_reading, "stored_now", stored_now)
    return stored


async def fence_of(device="veh-1"):
    truth = (await truth_now(None)).of(("default", device))
    return truth.fence, truth.online


async def test_a_takeover_that_is_stored_late_is_not_the_truth_however_long_ago(stream):
    stream += [(fact(1), AT), (fact(2), AT + 3), (ended(1, TAKEN_OVER, at=AT + 2), AT + 4)]
    assert await fence_of() == (2, True)


async def test_what_a_node_stores_after_an_hour_without_nats_is_not_the_truth(stream):
    stream += [(fact(2, at=AT + 60), AT + 60), (fact(1), AT + 3_600)]
    assert await fence_of() == (2, True)


async def test_a_fact_that_was_stored_a_moment_ago_is_compared_with_those_before(stream):
    now = time.time()
    stream += [(fact(2, at=now - 60), now - 60), (ended(1, LOST, at=now), now)]
    assert await fence_of() == (2, True)


async def test_only_the_devices_in_doubt_are_read_again(stream, reads):
    stream += [(fact(1, device=f"veh-{n}"), AT) for n in range(300)]
    stream += [(ended(1, NODE_LOST, device=f"veh-{n}"), AT) for n in range(150)]
    assert await fence_of("veh-3") == (1, False)
    assert await fence_of("veh-200") == (1, True)
    assert [len(each) for each in reads] == [1, 1, 100, 50] * 2


async def test_if_many_are_in_doubt_everything_is_read_once(stream, reads, monkeypatch):
    monkeypatch.setattr(presence_reading, "_ONE_BY_ONE_MAX", 10)
    stream += [(ended(1, NODE_LOST, device=f"veh-{n}"), AT) for n in range(11)]
    assert await fence_of("veh-3") == (1, False)
    assert reads == [["presence.*.*"]] * 3
