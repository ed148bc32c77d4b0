"""The credential of a session expires, or is replaced by a fresh one."""

import pytest

from gateway.admission.revocation import Revocation
from support.device_sessions import Rig, identity


@pytest.fixture
async def rig():
    return Rig()


async def test_a_credential_is_looked_at_when_it_expires_and_not_before(rig):
    rig.enter()
    until = rig.handler.deadline - rig.context.loop.time()
    assert 99.0 < until < 101.5
    rig.handler.on_deadline(0.0)
    assert rig.line.ended is None, "the wall clock was set back"
    rig.wall = 100.0
    rig.handler.on_deadline(0.0)
    assert rig.line.ended == (4401, {"error": "credential", "detail": "expired"})


async def test_a_fresh_credential_takes_the_place_of_the_old_one(rig):
    rig.enter()
    rig.verifier.known["fresh"] = identity(expires_at=1_000.0)
    rig.say({"credential": "fresh"})
    rig.wall = 500.0
    rig.handler.on_deadline(0.0)
    assert rig.line.ended is None
    assert rig.handler.identity.expires_at == 1_000.0


@pytest.mark.parametrize(
    ("token", "code", "error"),
    [("bad", 4401, "credential"), ("other", 1008, "credential"), ("revoked", 4403, "revoked")],
)
async def test_a_fresh_credential_that_cannot_be_used_ends_the_session(rig, token, code, error):
    rig.enter()
    rig.verifier.known = {"other": identity("veh-2"), "revoked": identity()}
    if token == "revoked":
        rig.revocations.add(Revocation(2.0**40, tenant="default", device="veh-1"))
    rig.say({"credential": token})
    assert (rig.line.ended[0], rig.line.ended[1]["error"]) == (code, error)
