"""Versions of states, and which state a session is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.desired import DesiredState, Version, epoch_of, parse_version

EPOCH, LATER = f"{1:016x}", f"{2:016x}"


@given(st.integers(0, 2**63), st.integers(0, 10**19 - 1))
def test_a_version_is_read_as_it_was_written(epoch, sequence):
    version = Version(f"{epoch:016x}", sequence)
    assert parse_version(str(version)) == version


NO_VERSIONS = ["", "-", "x-1", f"{EPOCH}-", f"{EPOCH}--1", f"{EPOCH}-1 ", f"{EPOCH}-{'9' * 20}"]


@pytest.mark.parametrize("text", [*NO_VERSIONS, "9" * 100_000])
def test_what_no_gateway_ever_told_is_no_version(text):
    assert parse_version(text) is None


def test_a_later_stream_has_a_higher_epoch():
    created = [
        "2026-11-26T03:37:50Z",
        "2026-11-26T03:37:50.1Z",
        "2026-11-26T03:37:50.15325924Z",
        "2026-11-26T03:37:50.153259241Z",
        "2026-11-26T04:37:51.1+01:00",
        "2026-11-26T03:37:52Z",
    ]
    epochs = [epoch_of(each) for each in created]
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize(
    ("held", "version", "sent"),
    [
        ("", Version(EPOCH, 1), True),
        ("", Version(EPOCH, 0), False),
        ("anything", Version(EPOCH, 1), True),
        (f"{EPOCH}-4", Version(EPOCH, 5), True),
        (f"{EPOCH}-5", Version(EPOCH, 5), False),
        (f"{EPOCH}-6", Version(EPOCH, 5), False),
        (f"{EPOCH}-9", Version(LATER, 1), True),
        (f"{LATER}-1", Version(EPOCH, 9), False),
    ],
)
def test_a_state_is_sent_only_if_its_version_is_higher(held, version, sent):
    desired = DesiredState(held)
    assert desired.take(version) is sent
    assert desired.take(version) is False


def test_a_claim_that_the_leader_disproves_counts_no_more():
    desired = DesiredState(f"{EPOCH}-900")
    assert desired.ahead_of(Version(EPOCH, 5))
    desired.disprove()
    assert desired.take(Version(EPOCH, 5))


def test_what_was_sent_is_never_disproved():
    desired = DesiredState(f"{EPOCH}-4")
    assert desired.take(Version(EPOCH, 6))
    desired.disprove()
    assert not desired.take(Version(EPOCH, 5))


def test_in_a_stream_made_anew_its_states_are_sent():
    """Also if its clock went back meanwhile, so that its epoch is lower."""
    desired = DesiredState(f"{LATER}-4")
    desired.enter(LATER)
    assert not desired.take(Version(LATER, 4))
    desired.enter(EPOCH)
    assert desired.take(Version(EPOCH, 1))
