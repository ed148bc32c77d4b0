import asyncio
from time import perf_counter

import pytest

from gateway.stream.lanes.standing import Standings
from gateway.stream.lanes.watermark import ResumePoints
from support.waiting import within
from tidegate.wire.frames import Hello


class Stored:
    """What the stream answers: so far, or nothing at all."""

    def __init__(self, seq=None):
        self.seq = seq

    async def last_seq(self, *_key):
        if self.seq is None:
            await asyncio.Event().wait()
        return self.seq, perf_counter()


def points(stored=None, asked=None, standings=None, *, rejecting=False):
    return ResumePoints(
        Standings(100.0) if standings is None else standings,
        Stored(stored),
        credit_max=256,
        rejecting=rejecting,
        clock=perf_counter,
        on_lookup=lambda: asked.append(1) if asked is not None else None,
    )


@pytest.mark.parametrize(
    ("hello", "stored", "resumed"),
    [
        (Hello("o", 5), 9, 9),
        (Hello("o", 5), 0, 4),
        (Hello("o", 5, sent=7), 9, 7),
        (Hello("o", 5, sent=12), 9, 9),
    ],
)
async def test_a_look_up_answers_what_is_stored_but_not_beyond_what_was_sent(
    hello, stored, resumed
):
    asked = []
    resume = points(stored, asked)
    assert resume.known("t", "d", hello) is None
    assert await within(resume.look_up("t", "d", hello)) == resumed
    assert len(asked) == 1


async def test_what_was_looked_up_is_known_a_moment_later():
    resume = points(9)
    await within(resume.look_up("t", "d", Hello("o", 5)))
    assert resume.known("t", "d", Hello("o", 10, sent=12)) == 9


async def test_where_schemas_reject_every_device_in_doubt_is_looked_up():
    """Another node may have stored the message in the other stream."""
    resume = points(9, rejecting=True)
    await within(resume.look_up("t", "d", Hello("o", 5)))
    assert resume.known("t", "d", Hello("o", 10, sent=12)) is None
    assert resume.known("t", "d", Hello("o", 10)) is None
    assert resume.known("t", "d", Hello("o", 10, sent=9)) == 9, "nothing is in doubt"


async def test_a_device_is_answered_although_the_stream_is_silent(monkeypatch):
    monkeypatch.setattr("gateway.stream.lanes.watermark._PATIENCE_S", 0.01)
    standings = Standings(100.0)
    resume = points(standings=standings)
    assert await within(resume.look_up("t", "d", Hello("o", 5))) == 4
    standing = standings.of("t", "d", "o", 0.0)
    assert standing.unsure
    assert standing.doubt_seq > 2**53, "its lane asks before it publishes anything"


async def test_the_look_up_of_a_device_that_leaves_is_cancelled():
    resume = points()
    asking = asyncio.create_task(resume.look_up("t", "d", Hello("o", 5)))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
