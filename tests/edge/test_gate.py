"""The gate: the order of its checks, and the visitors that it answers later."""

import asyncio
import base64
import random
from http import HTTPStatus

import pytest

from gateway.admission.budget import VerificationBudget
from gateway.admission.credential import Identity
from gateway.admission.errors import CredentialError
from gateway.admission.gcra import KeyedLimiter
from gateway.admission.outcome import ADMIT, Refuse
from gateway.admission.revocation import Revocation, RevocationList
from gateway.edge.errors import Refusal
from gateway.edge.fleet import Fleet
from gateway.edge.gate import DeviceGate, GateContext
from gateway.edge.memory import DeviceMemory
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.anteroom import Anteroom
from gateway.edge.opening.petition import Petition

DEVICE = Identity("veh-1", "default", "", urgent=False, jti="", expires_at=2**40)
SLOT = Refuse("rate", 2.0, "T")


class Verifier:
    """Knows the credential `known` from before, verifies `good`, and refuses any other."""

    def __init__(self):
        self.verified = []

    def recall(self, token):
        return DEVICE if token == "known" else None

    def verify(self, token):
        self.verified.append(token)
        if token != "good":
            raise CredentialError("signature", "wrong")
        return DEVICE


class Desk:
    """Answers each knock with `answer`; `poll` and `hold` answer what waits."""

    def __init__(self):
        self.answer = ADMIT
        self.asked, self.gone, self.outcomes = [], [], []

    def knock(self, claim, waiting, _now):
        self.asked.append((claim, waiting))
        return self.answer

    def poll(self, _now):
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def hold(self, _now):
        return [(waiting, Refuse("overload", 1.0)) for _claim, waiting in self.asked]

    def next_poll_at(self):
        return None

    def left(self, waiting, _now):
        self.gone.append(waiting)


class Visitor:
    def __init__(self):
        self.answers = []

    def admitted(self, identity):
        self.answers.append(identity)

    def refused(self, refusal):
        self.answers.append((refusal.status, refusal.reason))

    def abort(self, cause):
        self.answers.append(cause)


class Rig:
    def __init__(self, connections_max=10, knocks=3):
        self.now = 0.0
        self.verifier, self.desk = Verifier(), Desk()
        self.revocations = RevocationList(lambda: self.now)
        self.budget = VerificationBudget(share=0.5, now=0.0)
        self.memory = DeviceMemory()
        self.anteroom = Anteroom(places=2, observer=EdgeObserver())
        self.gate = DeviceGate(
            GateContext(
                verifier=self.verifier,
                revocations=self.revocations,
                fleet=Fleet(first_retry_ms_min=2_000, refusals_per_s=1_000, clock=lambda: self.now),
                memory=self.memory,
                desk=self.desk,
                office=None,
                budget=self.budget,
                device_knocks=KeyedLimiter(rate_per_s=1.0, burst=knocks, keys_max=100),
                address_knocks=KeyedLimiter(rate_per_s=1.0, burst=2 * knocks, keys_max=100),
                connections_max=connections_max,
                anteroom=self.anteroom,
                known_within_s=1.0,
                clock=lambda: self.now,
                rng=random.Random(1),
                loop=asyncio.get_running_loop(),
            )
        )

    def decide(self, token="known", address="a", visitor=None):
        return self.gate.decide(Petition(token, ""), address, visitor or Visitor())

    def refusal(self, **knock):
        with pytest.raises(Refusal) as caught:
            self.decide(**knock)
        return caught.value.status, caught.value.error, caught.value.reason


@pytest.fixture
async def rig():
    return Rig()


async def test_a_known_device_is_admitted_without_a_signature(rig):
    assert rig.decide() is DEVICE
    assert rig.decide("good") is DEVICE
    assert rig.verifier.verified == ["good"]


async def test_a_slot_is_a_value_and_no_exception(rig):
    rig.desk.answer = SLOT
    assert rig.decide() is SLOT


async def test_a_wrong_credential_is_refused_before_the_desk(rig):
    assert rig.refusal(token="bad") == (HTTPStatus.UNAUTHORIZED, "credential", "signature")
    assert rig.desk.asked == []


async def test_the_address_limit_comes_first(rig):
    for _ in range(6):
        rig.refusal(token="bad")
    assert rig.refusal(token="bad")[:2] == (HTTPStatus.TOO_MANY_REQUESTS, "address_rate")
    assert len(rig.verifier.verified) == 6
    assert rig.decide(address="another") is DEVICE


async def test_a_device_that_knocks_too_often_waits(rig):
    for number in range(3):
        rig.decide(address=str(number))
    assert rig.refusal(address="new")[:2] == (HTTPStatus.TOO_MANY_REQUESTS, "device_rate")
    rig.now = 60.0
    assert rig.decide() is DEVICE


async def test_signatures_beyond_the_budget_are_not_checked(rig):
    rig.budget.spend(1_000.0, 0.0)
    assert rig.refusal(token="good")[1:] == ("admission", "overload")
    assert rig.verifier.verified == []
    assert rig.decide("known") is DEVICE


async def test_a_revoked_device_is_refused(rig):
    rig.revocations.add(Revocation(2.0**40, tenant="default", device="veh-1"))
    assert rig.refusal()[:2] == (HTTPStatus.FORBIDDEN, "revoked")


async def test_a_node_that_drains_or_is_full_admits_no_device():
    rig = Rig(connections_max=1)
    visitor = Visitor()
    rig.gate.arrived(visitor, anonymous=True)
    assert rig.decide() is DEVICE, "anonymous connections have room of their own"
    rig.gate.arrived(Visitor(), anonymous=False)
    assert rig.refusal()[1:] == ("admission", "capacity")
    rig.gate.draining = True
    assert rig.refusal()[1:] == ("admission", "draining")


async def test_a_visitor_that_waits_is_answered_once(rig):
    rig.desk.answer = None
    admitted, refused, gone = Visitor(), Visitor(), Visitor()
    for visitor in (admitted, refused, gone):
        assert rig.decide(visitor=visitor) is None
    waiting = [each for _claim, each in rig.desk.asked]
    rig.gate.hung_up(gone)
    rig.gate.hung_up(gone)
    assert rig.desk.gone == [waiting[2]]
    rig.desk.outcomes = list(zip(waiting, (ADMIT, SLOT, ADMIT), strict=True))
    rig.gate.pump()
    assert admitted.answers == [DEVICE]
    assert refused.answers == [(HTTPStatus.SERVICE_UNAVAILABLE, "rate")]
    assert gone.answers == []


async def test_a_hold_refuses_what_waits(rig):
    rig.desk.answer = None
    visitor = Visitor()
    rig.decide(visitor=visitor)
    rig.gate.hold()
    assert visitor.answers == [(HTTPStatus.SERVICE_UNAVAILABLE, "overload")]


async def test_a_drain_refuses_what_waits_at_once_and_once(rig):
    """Its turn may be later than the end of the drain."""
    rig.desk.answer = None
    visitors = [Visitor(), Visitor()]
    for visitor in visitors:
        rig.decide(visitor=visitor)
    waiting = [each for _claim, each in rig.desk.asked]
    rig.gate.drain()
    assert [visitor.answers for visitor in visitors] == [
        [(HTTPStatus.SERVICE_UNAVAILABLE, "draining")]
    ] * 2
    assert rig.desk.gone == waiting, "a slot that it was promised stands"
    rig.desk.outcomes = [(waiting[0], ADMIT)]
    rig.gate.pump()
    assert len(visitors[0].answers) == 1
    assert rig.refusal()[1:] == ("admission", "draining")
    said = [(error, reason) for _, error, reason, _ in rig.memory.refusals(DEVICE.holder)]
    assert said == [("admission", "draining")] * 2


async def test_the_gate_knows_when_it_is_empty_and_drops_all_at_once(rig):
    assert rig.gate.empty.is_set()
    visitors = [Visitor(), Visitor()]
    for visitor in visitors:
        rig.gate.arrived(visitor, anonymous=True)
    assert (len(rig.gate), len(rig.anteroom), rig.gate.empty.is_set()) == (2, 2, False)
    rig.decide(visitor=visitors[0])
    assert len(rig.anteroom) == 1, "it has shown its credential"
    rig.gate.abort_all()
    assert [visitor.answers for visitor in visitors] == [["stopped"], ["stopped"]]
    for visitor in visitors:
        rig.gate.left(visitor)
    assert (len(rig.gate), len(rig.anteroom), rig.gate.empty.is_set()) == (0, 0, True)


async def test_each_refusal_of_a_known_device_is_remembered(rig):
    rig.desk.answer = SLOT
    rig.decide()
    rig.now = 0.5
    rig.revocations.state(Revocation(9.0, tenant="default", device="veh-1"))
    rig.refusal()
    rig.revocations.state(Revocation(0.0, tenant="default", device="veh-1", lifted=True))
    rig.decide()
    rig.decide()
    rig.refusal()
    said = [(at, error, reason) for at, error, reason, _ in rig.memory.refusals(DEVICE.holder)]
    assert said == [
        (0.5, "device_rate", ""),
        (0.5, "admission", "rate"),
        (0.5, "admission", "rate"),
        (0.5, "revoked", ""),
        (0.0, "admission", "rate"),
    ]


async def test_a_refusal_after_a_wait_is_remembered(rig):
    rig.desk.answer = None
    rig.decide()
    rig.gate.hold()
    assert rig.memory.refusals(DEVICE.holder) == [(0.0, "admission", "overload", 1.0)]


async def test_a_refusal_before_the_signature_is_a_claim(rig):
    payload = base64.urlsafe_b64encode(b'{"sub":"veh-9"}').decode().rstrip("=")
    token = f"x.{payload}.y"
    rig.refusal(token=token)
    rig.gate.draining = True
    rig.refusal(token=token)
    said = [(error, reason) for _, error, reason, _ in rig.memory.claims("default", "veh-9")]
    assert said == [("admission", "draining"), ("credential", "signature")]
    assert rig.memory.refusals(DEVICE.holder) == []
