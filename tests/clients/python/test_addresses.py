import random

import pytest

from tidegate.addresses import UrlRing, parse_address
from tidegate.errors import BadAddress


class InOrder(random.Random):
    def shuffle(self, x):
        pass


def ring(*urls):
    return UrlRing(urls, InOrder())


A, B, C = (f"ws://{name}.example/v1/device" for name in "abc")


def test_wellformed_addresses_are_read():
    address = parse_address("wss://gw.example/v1/device")
    assert (address.host, address.port, address.secure) == ("gw.example", 443, True)
    assert parse_address("ws://[::1]:8080/v1/device").host == "::1"


@pytest.mark.parametrize(
    "url",
    ["http://x/", "ws://[bad", "", "ws://", "gw:8080", "ws://x:99999/", "ws://x/#f", None, 7,
     "ws://x:port/", "ws://" + "a" * 70 + ".\u00e4/"],
)  # fmt: skip
def test_texts_that_are_not_addresses_are_refused(url):
    with pytest.raises(BadAddress):
        parse_address(url)
    with pytest.raises(BadAddress):
        UrlRing([url], InOrder())


def test_a_password_is_refused_and_not_repeated():
    with pytest.raises(BadAddress) as caught:
        parse_address("ws://user:hunter2@x/")
    assert "hunter2" not in str(caught.value)


def test_a_list_without_addresses_is_refused():
    with pytest.raises(BadAddress):
        UrlRing([], InOrder())


def test_the_address_that_answers_stays_current():
    urls = ring(A, B, C)
    urls.lost()
    assert urls.current == B
    urls.lives()
    urls.lives()
    assert urls.current == B


def test_a_silent_address_is_not_tried_while_another_may_answer():
    urls = ring(A, B, C)
    urls.lost()
    urls.lives()  # B
    urls.leave()
    assert urls.current == C, "A did not answer"
    urls.leave()
    assert urls.current == B, "A did not answer"


def test_when_all_are_silent_all_are_tried_in_turn():
    urls = ring(A, B)
    tried = []
    for _ in range(6):
        tried.append(urls.current)
        urls.lost()
    assert tried == [A, B, A, B, A, B]


def test_a_device_that_is_sent_away_from_its_only_address_returns_to_it():
    urls = ring(A)
    urls.leave()
    assert urls.current == A
    urls.lost()
    assert urls.current == A


def test_the_device_gives_up_only_if_no_address_is_an_endpoint():
    urls = ring(A, B)
    assert not urls.pointless()
    assert urls.current == B
    assert urls.pointless()
    urls.lives()
    assert not urls.pointless(), "one that answered later takes it back"


def test_addresses_are_shuffled_to_spread_a_fleet():
    firsts = {UrlRing([A, B, C], random.Random(seed)).current for seed in range(30)}
    assert firsts == {A, B, C}
