import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.errors import TicketError
from gateway.admission.ticket import TICKET_CHARS, TicketOffice, device_hash

OLD, NEW = b"o" * 32, b"n" * 40
HOLDER = device_hash("default", "veh-1")
NOW = 1_795_000_000.0


@given(st.floats(0, 2**32), st.booleans())
def test_a_ticket_says_what_it_was_issued_for(slot_at, priority):
    office = TicketOffice([NEW])
    text = office.issue(slot_at, holder=HOLDER, now=NOW, priority=priority)
    ticket = office.check(text, holder=HOLDER, now=NOW)
    assert ticket.slot_at == pytest.approx(slot_at, abs=0.001)
    assert ticket.priority is priority
    assert len(text) == TICKET_CHARS
    assert len(base64.urlsafe_b64decode(text + "==")) == 31


def test_any_node_with_the_secret_honours_it():
    text = TicketOffice([NEW]).issue(NOW + 5, holder=HOLDER, now=NOW)
    assert TicketOffice([NEW]).check(text, holder=HOLDER, now=NOW + 5).slot_at == NOW + 5


def reason(office, text, holder=HOLDER, now=NOW):
    with pytest.raises(TicketError) as caught:
        office.check(text, holder=holder, now=now)
    return caught.value.reason


def test_it_is_of_no_use_to_another_device():
    office = TicketOffice([NEW])
    text = office.issue(NOW, holder=HOLDER, now=NOW)
    assert reason(office, text, holder=device_hash("default", "veh-2")) == "holder"
    assert device_hash("a", "b") != device_hash("b", "a")


def test_every_changed_bit_is_noticed():
    office = TicketOffice([NEW])
    raw = bytearray(base64.urlsafe_b64decode(office.issue(NOW, holder=HOLDER, now=NOW) + "=="))
    for bit in range(len(raw) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        forged = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        assert reason(office, forged) in ("malformed", "key", "forged", "holder")
        raw[bit // 8] ^= 1 << bit % 8


@given(st.text(max_size=60))
def test_rubbish_is_malformed(text):
    assert reason(TicketOffice([NEW]), text) in ("malformed", "key", "forged")


def test_secrets_rotate_with_overlap():
    before, during, after = TicketOffice([OLD]), TicketOffice([NEW, OLD]), TicketOffice([NEW])
    old = before.issue(NOW, holder=HOLDER, now=NOW)
    assert during.check(old, holder=HOLDER, now=NOW).slot_at == NOW
    assert reason(after, old) in ("key", "forged")
    new = during.issue(NOW, holder=HOLDER, now=NOW)
    assert after.check(new, holder=HOLDER, now=NOW).slot_at == NOW
    before.rotate([NEW])
    assert before.check(new, holder=HOLDER, now=NOW).slot_at == NOW


def test_keys_turn_with_time_and_the_neighbours_are_accepted():
    office = TicketOffice([NEW], rotation_s=100)
    text = office.issue(NOW + 50, holder=HOLDER, now=NOW)
    assert office.check(text, holder=HOLDER, now=NOW + 100).slot_at == NOW + 50
    assert reason(office, text, now=NOW + 250) in ("key", "forged")


def test_two_secrets_whose_key_ids_collide_both_verify():
    rng = random.Random(7)
    secrets = [rng.randbytes(32) for _ in range(60)]
    everybody = TicketOffice(secrets)
    for secret in secrets:
        text = TicketOffice([secret]).issue(NOW, holder=HOLDER, now=NOW)
        assert everybody.check(text, holder=HOLDER, now=NOW).slot_at == NOW


@pytest.mark.parametrize("secrets", [[], [b"short"], [NEW, b"x" * 31]])
def test_a_short_secret_is_an_error(secrets):
    with pytest.raises(ValueError, match="32 bytes"):
        TicketOffice(secrets)


@pytest.mark.parametrize(
    "text", ["\u00e9" * 42, "!" * 41 + "A", "!!" + "A" * 40, "A" * 42, "A" * 41, ""]
)
def test_what_is_no_ticket_is_malformed(text):
    with pytest.raises(TicketError) as caught:
        TicketOffice([bytes(32)]).check(text, holder=bytes(8), now=0.0)
    assert caught.value.reason == "malformed"
