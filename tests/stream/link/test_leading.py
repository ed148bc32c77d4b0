"""Which server of a cluster is tried first."""

import random

from gateway.stream.errors import Unreachable
from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.leading import LeaderFirst, Seen
from gateway.stream.link.link import NatsLink
from support.servers import nats_server
from support.waiting import within


class Cluster:
    """Answers for three servers; `away` ones do not."""

    def __init__(self):
        self.leader = "c"
        self.away = set()
        self.asked = []

    async def look(self, url):
        self.asked.append(url)
        if url in self.away:
            raise Unreachable("connection refused")
        return Seen(url.removeprefix("nats://"), self.leader)


URLS = ["nats://a", "nats://b", "nats://c"]


async def test_the_leader_comes_first_and_is_found_by_name_once():
    cluster = Cluster()
    first = LeaderFirst(cluster.look)
    assert await first.order(URLS) == ["nats://c", "nats://a", "nats://b"]
    assert cluster.asked == URLS
    assert await first.order(URLS) == ["nats://c", "nats://a", "nats://b"]
    assert cluster.asked[3:] == ["nats://a"]
    cluster.leader = "b"
    assert await first.order(URLS) == ["nats://b", "nats://a", "nats://c"]
    assert cluster.asked[4:] == ["nats://a"]


async def test_a_server_that_is_away_is_not_asked_who_leads():
    cluster = Cluster()
    cluster.away = {"nats://a"}
    assert await LeaderFirst(cluster.look).order(URLS) == ["nats://c", "nats://a", "nats://b"]


async def test_without_a_leader_the_order_stays():
    cluster = Cluster()
    cluster.leader = ""
    assert await LeaderFirst(cluster.look).order(URLS) == URLS
    assert cluster.asked == ["nats://a"]
    cluster.leader = "elsewhere"
    assert await LeaderFirst(cluster.look).order(URLS) == URLS
    cluster.away = set(URLS)
    assert await LeaderFirst(cluster.look).order(URLS) == URLS
    cluster.asked.clear()
    assert await LeaderFirst(cluster.look).order(["nats://a"]) == ["nats://a"]
    assert cluster.asked == []


async def test_a_link_tries_servers_in_the_order_that_it_is_given(tmp_path):
    async def up(_client):
        pass

    async def order(urls):
        return sorted(urls, key=lambda url: url != two.url)

    with nats_server(tmp_path / "1") as one, nats_server(tmp_path / "2") as two:
        address = NatsAddress((one.url, two.url))
        asked = LeaderFirst.of(address, "test")
        assert sorted(await within(asked.order(list(address.urls)))) == sorted(address.urls)
        for seed in range(4):
            link = NatsLink(
                address,
                name="test",
                on_up=up,
                on_ready=lambda _client: None,
                on_down=lambda: None,
                on_failure=lambda failure: None,
                rng=random.Random(seed),
                order=order,
            )
            link.start()
            client = await within(link.wait_up())
            assert client.connected_url.port == int(two.url.rpartition(":")[2])
            await link.stop()
