"""Signing in to a server of the operator's, and coming back to it."""

import random

import pytest
from support.operator_mode import make_operator
from support.servers import nats_server
from support.tls import make_certificate
from support.waiting import eventually, within

from gateway.stream.nats_link import NatsAddress, NatsLink


class Watcher:
    def __init__(self):
        self.events = []
        self.failures = []
        self.denied = []

    async def on_up(self, client):
        self.events.append("up")

    def on_ready(self):
        self.events.append("ready")

    def on_down(self):
        self.events.append("down")


def link_to(watcher, *urls, seed=1, **options):
    return NatsLink(
        NatsAddress(urls, reconnect_wait_s=0.01, reconnect_wait_max_s=0.05, **options),
        name="test",
        on_up=watcher.on_up,
        on_ready=watcher.on_ready,
        on_down=watcher.on_down,
        on_failure=watcher.failures.append,
        on_denied=watcher.denied.append,
        rng=random.Random(seed),
    )


async def test_it_comes_back_and_says_so_in_order(tmp_path):
    watcher = Watcher()
    with nats_server(tmp_path) as server:
        link = link_to(watcher, server.url)
        assert not link.write(b"PING\r\n")
        link.start()
        await within(link.wait_up())
        assert link.write(b"PING\r\n")
        server.kill()
        await eventually(lambda: link.client is None)
        server.start()
        await within(link.wait_up())
        await link.stop()
    assert watcher.events[:5] == ["up", "ready", "down", "up", "ready"]


async def test_of_several_servers_any_that_lives_will_do(tmp_path):
    """Whichever is tried first."""
    with nats_server(tmp_path) as server:
        first = set()
        for seed in range(8):
            urls = ["nats://127.0.0.1:1", server.url]
            link = link_to(Watcher(), *urls, seed=seed)
            random.Random(seed).shuffle(urls)
            first.add(urls[0])
            link.start()
            assert (await within(link.wait_up())).is_connected
            await link.stop()
    assert len(first) == 2


class Recording(random.Random):
    def __init__(self):
        super().__init__(1)
        self.ceilings = []

    def uniform(self, a, b):
        self.ceilings.append(b)
        return super().uniform(a, b)


async def test_a_server_that_hangs_up_at_once_is_not_knocked_at_without_pause(tmp_path):
    with nats_server(tmp_path, max_payload=1_000) as server:
        rng = Recording()
        link = NatsLink(
            NatsAddress((server.url,), reconnect_wait_s=0.001, reconnect_wait_max_s=0.016),
            name="test",
            on_up=Watcher().on_up,
            on_ready=lambda: link.write(b"PUB a 2000\r\n" + b"x" * 2_000 + b"\r\n"),
            on_down=lambda: None,
            on_failure=Watcher().failures.append,
            rng=rng,
        )
        link.start()
        await eventually(lambda: len(rng.ceilings) >= 5)
        await link.stop()
    assert rng.ceilings[:5] == [0.002, 0.004, 0.008, 0.016, 0.016]


async def test_a_server_that_is_away_is_knocked_at_again_at_our_own_pace(tmp_path):
    with nats_server(tmp_path) as server:
        server.kill()
        link = link_to(Watcher(), server.url)
        link.start()
        await eventually(lambda: "Connect" in link.last_error or "refused" in link.last_error)
        server.start()
        await within(link.wait_up())
        await link.stop()


@pytest.mark.parametrize(
    ("config", "right", "wrong"),
    [
        (
            {"authorization": {"user": "u", "password": "p" * 12}},
            {"user": "u", "password": "p" * 12},
            {"user": "u", "password": "no"},
        ),
        ({"authorization": {"token": "s3cr3t-token"}}, {"token": "s3cr3t-token"}, {"token": "no"}),
    ],
    ids=["password", "token"],
)
async def test_signing_in(tmp_path, config, right, wrong):
    with nats_server(tmp_path, **config) as server:
        link = link_to(Watcher(), server.url, **right)
        link.start()
        await within(link.wait_up())
        await link.stop()
        refused = link_to(Watcher(), server.url, **wrong)
        refused.start()
        await eventually(lambda: "Authorization" in refused.last_error)
        assert refused.client is None
        await refused.stop()
        assert not any(secret in repr(link._address) for secret in right.values() if secret != "u")


async def test_tls(tmp_path):
    certificate = make_certificate(tmp_path)
    tls = {"cert_file": str(certificate.cert), "key_file": str(certificate.key)}
    with nats_server(tmp_path / "server", tls=tls) as server:
        url = server.url.replace("nats://127.0.0.1", "tls://localhost")
        link = link_to(Watcher(), url, tls=certificate.client_context())
        link.start()
        await within(link.wait_up())
        await link.stop()


async def test_a_credentials_file_signs_in_to_a_server_of_an_operator(tmp_path):
    operator = make_operator(tmp_path)
    with nats_server(tmp_path / "server", jetstream=None, **operator.config) as server:
        link = link_to(Watcher(), server.url, credentials_file=str(operator.credentials))
        link.start()
        await within(link.wait_up())
        await link.stop()
        without = link_to(Watcher(), server.url)
        without.start()
        await eventually(lambda: "Authorization" in without.last_error)
        await without.stop()
