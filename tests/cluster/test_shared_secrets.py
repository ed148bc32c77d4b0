"""When a node asks its fleet for ticket secrets, and what it gives."""

import pytest

from gateway.admission.keyring import Keyring, secret_id
from gateway.cluster.secrets import SharedSecrets

# By their ids, which decide between secrets that all nodes accept.
FIRST, SECOND, THIRD = sorted((b"a" * 32, b"b" * 32, b"c" * 32), key=secret_id)


class Redis:
    """Does what `secrets.lua` does."""

    def __init__(self):
        self.secrets = {}
        self.calls = 0

    def key(self, name):
        return name

    async def script(self, _name, _keys, arguments):
        self.calls += 1
        own, used = arguments[:2], arguments[2:]
        self.secrets |= dict(zip(used[::2], used[1::2], strict=True))
        if not self.secrets:
            self.secrets |= {own[0]: own[1]}
        return [each for pair in self.secrets.items() for each in pair]


class Node:
    def __init__(self, redis, own, **settings):
        self.keyring = Keyring(settings.get("configured", []), [own])
        self.secrets = SharedSecrets(redis, self.keyring, on_change=lambda: None)

    @property
    def accepts(self):
        return frozenset(self.keyring.ids)

    def hears(self, **others):
        accepts = {name: node.accepts for name, node in others.items()}
        return self.secrets.heard(accepts, complete=True)


@pytest.fixture
def redis():
    return Redis()


async def test_a_secret_that_another_node_keeps_to_itself_is_asked_for_once(redis):
    one, two = Node(redis, FIRST), Node(redis, SECOND)
    await one.secrets.exchange()
    await two.secrets.exchange()
    assert one.hears(two=two)
    await one.secrets.exchange()
    assert one.keyring.secrets == [FIRST]
    assert not any(node.hears(**{name: other}) for _ in range(3) for node, name, other in
                   ((one, "two", two), (two, "one", one)))  # fmt: skip
    assert two.keyring.issuing == FIRST


async def test_a_node_that_comes_or_accepts_more_is_a_reason_to_ask(redis):
    one, two, three = (Node(redis, own) for own in (FIRST, SECOND, THIRD))
    for node in (one, two):
        await node.secrets.exchange()
    assert one.hears(two=two)
    await one.secrets.exchange()
    assert not one.hears(two=two)
    assert one.hears(two=two, three=three)
    two.keyring.learn([THIRD])
    assert one.hears(two=two, three=three)
    assert not one.hears(two=two, three=three)
    assert not one.hears(three=three), "one has left"
    assert one.hears(two=two, three=three), "and is back"


async def test_a_secret_that_a_node_begins_to_sign_with_is_given_to_the_fleet(redis):
    one, two = Node(redis, SECOND), Node(redis, FIRST)
    for node in (one, two):
        await node.secrets.exchange()
    two.hears(one=one)
    assert two.keyring.issuing == SECOND
    assert two.hears(), "it is alone now, and signs with its own"
    assert two.keyring.issuing == FIRST
    await two.secrets.exchange()
    assert not two.hears()
    again = Node(redis, SECOND)
    await again.secrets.exchange()
    assert again.accepts == {secret_id(FIRST), secret_id(SECOND)}


async def test_a_node_whose_settings_name_its_secrets_asks_for_none(redis):
    node, other = Node(redis, FIRST, configured=[THIRD]), Node(redis, SECOND)
    assert not node.hears(other=other)
    await node.secrets.exchange()
    assert redis.calls == 0
