"""Nodes tell each other which devices they have admitted."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.admission.ticket import device_hash
from gateway.cluster import admission_news
from gateway.cluster.admission_news import AdmissionNews
from gateway.cluster.errors import RedisUnavailable

HOLDERS = [device_hash("t", f"veh-{number}") for number in range(3)]


class Link:
    """Gives what is published to every node, unless it is down."""

    def __init__(self):
        self.nodes = []
        self.published = []
        self.up = True

    def key(self, name):
        return f"tidegate:{name}"

    async def call(self, work):
        if not self.up:
            raise RedisUnavailable("unreachable", "test")
        await work(self)

    async def publish(self, channel, text):
        self.published.append((channel, text))
        for node in self.nodes:
            node.on_message(text)


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def heard():
    return {"a": [], "b": []}


@pytest.fixture
async def nodes(link, heard, monkeypatch):
    monkeypatch.setattr(admission_news, "_GATHER_S", 0.0)
    link.nodes = [AdmissionNews(link, node=name, on_admitted=heard[name].extend) for name in "ab"]
    running = [asyncio.create_task(node.run()) for node in link.nodes]
    yield link.nodes
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_one_node_admits_the_others_hear_in_one_message(nodes, link, heard):
    for number in range(3):
        nodes[0].add(HOLDERS[number])
    await turns()
    assert heard == {"a": [], "b": HOLDERS}
    assert len(link.published) == 1
    await turns()
    assert len(link.published) == 1  # silence costs nothing


async def test_what_happens_while_redis_is_away_is_not_told(nodes, link, heard):
    link.up = False
    nodes[0].add(HOLDERS[0])
    await turns()
    link.up = True
    nodes[0].add(HOLDERS[1])
    await turns()
    assert heard["b"] == HOLDERS[1:2]


async def test_a_message_has_a_bound(nodes, heard, monkeypatch):
    monkeypatch.setattr(admission_news, "_HOLDERS_MAX", 2)
    for number in range(3):
        nodes[0].add(HOLDERS[number])
    await turns()
    assert heard["b"] == HOLDERS[:2]


@pytest.mark.parametrize("text", ["", "c", "c ", "c AAAA", "c !", "c é", "c AAAAAAAAAAA"])
def test_a_malformed_message_is_logged_and_changes_nothing(link, text):
    heard = []
    news = AdmissionNews(link, node="a", on_admitted=heard.extend)
    with capture_logs() as logs:
        news.on_message(text)
    assert not heard
    assert [log["event"] for log in logs] == ["cluster_message_malformed"]
