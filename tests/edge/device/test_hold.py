"""The hold: every session is held and released, and an error in a release is raised."""

import random

import pytest

from gateway.edge.device.hold import StreamHold
from support.waiting import eventually


class Session:
    def __init__(self, fails=False):
        self.held = ""
        self.fails = fails

    def hold(self, reason):
        self.held = reason

    def release(self):
        if self.fails:
            raise ValueError("broken")
        self.held = ""


def hold_of(*sessions):
    return StreamHold(sessions, release_per_s=1_000, rng=random.Random(1))


async def test_every_session_is_held_and_released():
    sessions = [Session() for _ in range(3)]
    hold = hold_of(*sessions)
    hold.engage("stream")
    assert {session.held for session in sessions} == {"stream"}
    hold.disengage()
    await eventually(lambda: {session.held for session in sessions} == {""})
    await hold.close()


async def test_a_release_that_fails_is_raised_at_the_next_call():
    hold = hold_of(Session(fails=True))
    hold.engage("stream")
    hold.disengage()
    await eventually(hold._releasing.done)
    with pytest.raises(ValueError, match="broken"):
        hold.disengage()
    hold.disengage()
    await hold.close()
