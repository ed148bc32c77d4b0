"""Revocations of a node: enforced, kept on disk, shared as far as it goes, and it says how far."""

import asyncio
import time

import pytest

from gateway.admission.credential import Identity
from gateway.admission.revocation import Revocation, RevocationList
from gateway.node.cluster.membership import Reach
from gateway.node.cluster.revocations import Revocations, earlier_of
from gateway.node.ops.revocations import OperatorRevocations
from gateway.ops.orders import Subject
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
        RevocationList(time.time), file=tmp_path / "revocations.jsonl", sessions=sessions
    )
    node.load()
    return node


class Others:
    """The other nodes, as far as revocations are concerned."""

    def __init__(self, reach):
        self.reach = reach
        self.taken = []

    async def share(self, facts):
        self.taken.extend(facts)
        return self.reach


def orders_of(node, reach=Reach.NODE):
    return OperatorRevocations(node, Others(reach))


def of(device):
    return Revocation(UNTIL, tenant="t", device=device)


async def test_a_revocation_ends_its_sessions_and_outlives_a_restart(tmp_path):
    revoked, other = Session("veh-1"), Session("veh-2")
    node = made(tmp_path, revoked, other)
    assert await orders_of(node).revoke(Subject("", "t", "veh-1"), UNTIL) == Reach.NODE
    assert isinstance(revoked.ended, Revoked)
    assert other.ended is None
    again = made(tmp_path)
    assert [fact.device for fact in again.in_force()] == ["veh-1"]
    assert await orders_of(again).unrevoke(Subject("", "t", "veh-1")) == Reach.NODE
    assert made(tmp_path).in_force() == []


@pytest.mark.parametrize("reach", [Reach.FLEET, Reach.PENDING, Reach.NODE])
async def test_it_says_how_far_it_went(tmp_path, reach):
    orders = orders_of(made(tmp_path), reach)
    assert await orders.spread(of("veh-1")) == reach
    assert orders.in_force() == [(Subject("", "t", "veh-1"), UNTIL)]


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        (Reach.FLEET, Reach.FLEET),
        (Reach.PENDING, Reach.MEMORY),
        (Reach.NODE, Reach.MEMORY),
    ],
)
async def test_without_its_disk_a_node_relies_on_the_fleet(tmp_path, reach, said):
    (tmp_path / "revocations.jsonl").mkdir()
    node = Revocations(RevocationList(time.time), file=tmp_path / "revocations.jsonl", sessions=())
    assert await orders_of(node, reach).spread(of("veh-1")) == said


@pytest.mark.parametrize(("wall", "fleet"), [(5.0, 7.0), (7.0, 5.0)])
def test_revocations_end_by_the_clock_that_is_behind(wall, fleet):
    assert earlier_of(lambda: wall, lambda: fleet)() == 5.0


def work_of(node):
    ((_name, work),) = node.work()
    return work


async def test_a_disk_that_refuses_is_said_and_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("gateway.node.cluster.revocations._GATHER_S", 0.0)
    monkeypatch.setattr("gateway.node.cluster.revocations._RETRY_S", 0.01)
    (tmp_path / "revocations.jsonl").mkdir()
    node = Revocations(RevocationList(time.time), file=tmp_path / "revocations.jsonl", sessions=())
    running = asyncio.create_task(work_of(node))
    assert await orders_of(node).spread(of("veh-1")) == Reach.MEMORY
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
    await within(node.stop())
    again = made(tmp_path)
    assert len(again.in_force()) == 25
    again.learn([Revocation(UNTIL, tenant="t", device="veh-0", at=2.0, lifted=True)])
    assert len(again.in_force()) == 24


def test_a_line_that_is_no_fact_does_not_lose_the_others(tmp_path):
    good = f'{{"jti": "j-1", "until": {UNTIL}}}'
    (tmp_path / "revocations.jsonl").write_text(f"nonsense\n{good}\n")
    assert [fact.jti for fact in made(tmp_path).in_force()] == ["j-1"]
