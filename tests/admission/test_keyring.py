"""Secrets rotate without a dishonoured ticket, in whatever order nodes are restarted."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.keyring import Agreement, Keyring, secret_id

OLD, NEW, OWN, LATER = (letter * 32 for letter in (b"o", b"n", b"s", b"l"))


def meet(*rings):
    """Each node learns which secrets the others accept."""
    accepts = {index: frozenset(ring.ids) for index, ring in enumerate(rings)}
    for index, ring in enumerate(rings):
        ring.choose({str(n): ids for n, ids in accepts.items() if n != index})


def test_alone_it_issues_with_the_newest():
    assert Keyring([NEW, OLD], []).issuing == NEW
    assert Keyring([NEW, OLD], []).secrets == [NEW, OLD]
    assert Keyring([], [OWN]).issuing == OWN


def test_after_a_restart_it_issues_with_what_the_fleet_used_last():
    ring = Keyring([], [OWN, OLD, NEW])
    assert (ring.issuing, ring.own) == (NEW, OWN)
    assert set(ring.secrets) == {OWN, OLD, NEW}


def test_there_must_be_one():
    with pytest.raises(ValueError, match="secret"):
        Keyring([], [])


@pytest.mark.figures
@given(st.permutations(range(4)), st.integers(0, 99))
def test_a_rotation_node_by_node_dishonours_nothing(order, seed):
    """Node by node gets the new secret, then loses the old one; heartbeats come at any time."""
    rng = random.Random(seed)
    rings = [Keyring([OLD], []) for _ in order]

    def beats():
        for _ in range(rng.randrange(1, 9)):
            ring = rng.randrange(len(rings))
            accepts = {str(n): frozenset(r.ids) for n, r in enumerate(rings) if n != ring}
            rings[ring].choose(accepts)
            check()

    def check():
        for issuer, reader in itertools.product(rings, rings):
            assert issuer.issuing in reader.secrets

    for configured in ([NEW, OLD], [NEW]):
        for index in order:
            rings[index] = Keyring(configured, [])
            # Its first beat is before its first knock.
            rings[index].choose(
                {str(n): frozenset(r.ids) for n, r in enumerate(rings) if n != index}
            )
            check()
            beats()
        meet(*rings)
        assert {ring.issuing for ring in rings} == {NEW}
        assert all(ring.agreement == Agreement() for ring in rings)


def test_from_a_shared_secret_to_a_configured_one():
    rings = [Keyring([], [OWN]) for _ in range(2)]
    rings[0] = Keyring([NEW], [OWN])
    meet(*rings)
    assert {ring.issuing for ring in rings} == {OWN}, "the other does not accept the new one yet"
    rings[1] = Keyring([NEW], [OWN])
    meet(*rings)
    assert {ring.issuing for ring in rings} == {NEW}


def test_shared_secrets_are_accepted_and_all_settle_on_one():
    rings = [Keyring([], [own]) for own in (OWN, OLD, LATER)]
    assert rings[0].learn([OWN, OLD, LATER])
    meet(*rings)
    assert rings[0].agreement.unheard == 1
    for ring in rings[1:]:
        assert ring.learn([OWN, OLD, LATER])
        assert not ring.learn([OWN])
    meet(*rings)
    assert len({ring.issuing for ring in rings}) == 1
    assert all(ring.agreement == Agreement() for ring in rings)


def test_a_node_with_configured_secrets_takes_none_from_redis():
    ring = Keyring([NEW], [])
    assert not ring.learn([OLD])
    assert ring.secrets == [NEW]


def test_who_differs_from_most_says_so_and_the_others_that_one_does_not_hear():
    rings = [Keyring([NEW, OLD], []), Keyring([OLD], []), Keyring([OWN], [])]
    meet(*rings)
    assert [ring.issuing for ring in rings] == [OLD, OLD, OWN]
    assert [ring.agreement.odd for ring in rings] == [False, False, True]
    assert [ring.agreement.unheard for ring in rings] == [1, 1, 2]


def test_of_two_that_differ_one_is_the_odd_one():
    rings = [Keyring([OWN], []), Keyring([OLD], [])]
    meet(*rings)
    assert sorted(ring.agreement.odd for ring in rings) == [False, True]


def test_what_cannot_ask_the_others_issues_with_what_they_have_had_longest():
    ring = Keyring([NEW, OLD], [])
    ring.ask_nobody()
    assert ring.issuing == OLD
    ring.choose({})
    assert ring.issuing == NEW
    shared = Keyring([], [OWN, OLD])
    shared.ask_nobody()
    assert shared.issuing == OLD


def test_choose_says_whether_anything_changed():
    ring = Keyring([NEW, OLD], [])
    assert ring.choose({"b": frozenset([secret_id(OLD)])})
    assert not ring.choose({"b": frozenset([secret_id(OLD)])})
    assert ring.choose({})
    assert ring.issuing == NEW


def test_an_id_tells_nothing_of_its_secret():
    assert secret_id(NEW) != secret_id(OLD)
    assert len(secret_id(NEW)) == 16
    assert NEW.hex()[:8] not in secret_id(NEW)
