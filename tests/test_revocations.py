"""Revocations of a node: enforced, kept on disk, shared as far as it goes, and it says how far."""

import asyncio
import time

import pytest

from gateway.admission.credential import Identity
from gateway.admission.revocation import Revocation, RevocationList
from gateway.revocations import FLEET, MEMORY, NODE, PENDING, Revocations
from gateway.session.errors import Revoked
from support.waiting import eventually, within

UNTIL = time.time() + 3_600


class Session:
    def __init__(self, device):
        self.identity = Identity(device, "t", "g", False, "", 1e12)
        self.ended = None

    def end(self, offence):
        self.ended = offence


def made(tmp_path, *sessions):
    node = Revocations(
        RevocationList(time.time), file=tmp_path / "revocations.jsonl", sessions=lambda: sessions
    )
    node.load()
    return node


def of(device):
    return Revocation(UNTIL, tenant="t", device=device)


async def test_a_revocation_ends_its_sessions_and_outlives_a_restart(tmp_path):
    revoked, other = Session("veh-1"), Session("veh-2")
    node = made(tmp_path, revoked, other)
    assert await node.revoke(of("veh-1")) == NODE
    assert isinstance(revoked.ended, Revoked)
    assert other.ended is None
    again = made(tmp_path)
    assert [fact.device for fact in again.in_force()] == ["veh-1"]
    assert await again.lift(tenant="t", device="veh-1") == NODE
    assert made(tmp_path).in_force() == []


async def test_it_says_how_far_it_went(tmp_path):
    taken, there = [], True

    async def share(facts):
        taken.extend(facts)
        return there

    node = made(tmp_path)
    node.share_with(share)
    assert await node.revoke(of("veh-1")) == FLEET
    assert node.pending == 0
    there = False
    assert await node.revoke(of("veh-2")) == PENDING
    assert await node.lift(jti="j-1") == PENDING
    assert node.pending == 2
    node.all_shared()
    assert node.pending == 0
    assert [fact.key for fact in taken] == [("t", "veh-1"), ("t", "veh-2"), ("j-1",)]


async def test_a_disk_that_refuses_is_said_and_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("gateway.revocations._GATHER_S", 0.0)
    monkeypatch.setattr("gateway.revocations._RETRY_S", 0.01)
    (tmp_path / "revocations.jsonl").mkdir()
    node = Revocations(
        RevocationList(time.time), file=tmp_path / "revocations.jsonl", sessions=list
    )
    running = asyncio.create_task(node.run())
    assert await node.revoke(of("veh-1")) == MEMORY
    (tmp_path / "revocations.jsonl").rmdir()
    await eventually((tmp_path / "revocations.jsonl").is_file)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [fact.device for fact in made(tmp_path).in_force()] == ["veh-1"]


async def test_what_others_state_is_enforced_and_kept(tmp_path):
    sessions = [Session(f"veh-{n}") for n in range(50)]
    node = made(tmp_path, *sessions)
    facts = [Revocation(UNTIL, tenant="t", device=f"veh-{n}", at=1.0) for n in range(0, 50, 2)]
    node.learn(facts)
    assert [session.ended is not None for session in sessions] == [True, False] * 25
    await within(node.close())
    again = made(tmp_path)
    assert len(again.in_force()) == 25
    again.learn([Revocation(UNTIL, tenant="t", device="veh-0", at=2.0, lifted=True)])
    assert len(again.in_force()) == 24


def test_a_line_that_is_no_fact_does_not_lose_the_others(tmp_path):
    good = f'{{"jti": "j-1", "until": {UNTIL}}}'
    (tmp_path / "revocations.jsonl").write_text(f"nonsense\n{good}\n")
    assert [fact.jti for fact in made(tmp_path).in_force()] == ["j-1"]
