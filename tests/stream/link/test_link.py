"""Signing in to an operator's server, and reconnecting to it."""

import random

import pytest
from structlog.testing import capture_logs

from gateway.stream.errors import ConnectError, Unreachable
from gateway.stream.link.dialing import NatsAddress, connect_once
from gateway.stream.link.link import NatsLink
from loadtest.servers.certificates import make_certificate
from support.operator_mode import make_operator
from support.servers import nats_server
from support.waiting import eventually, within


class Watcher:
    def __init__(self):
        self.events = []
        self.failures = []
        self.denied = []

    async def on_up(self, client):
        self.events.append("up")

    def on_ready(self, _client):
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


async def test_the_link_reconnects_and_calls_its_hooks_in_order(tmp_path):
    watcher = Watcher()
    with nats_server(tmp_path) as server:
        link = link_to(watcher, server.url)
        link.start()
        client = await within(link.wait_up())
        assert client.write(b"PING\r\n")
        server.kill()
        await eventually(lambda: link.client is None)
        assert not client.write(b"PING\r\n")
        server.start()
        await within(link.wait_up())
        await link.stop()
    assert watcher.events[:5] == ["up", "ready", "down", "up", "ready"]


async def test_the_link_uses_any_server_that_answers(tmp_path):
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


async def test_the_wait_grows_for_a_server_that_hangs_up_at_once(tmp_path):
    with nats_server(tmp_path, max_payload=1_000) as server:
        rng = Recording()
        link = NatsLink(
            NatsAddress((server.url,), reconnect_wait_s=0.1, reconnect_wait_max_s=0.4),
            name="test",
            on_up=Watcher().on_up,
            on_ready=lambda client: client.write(b"PUB a 2000\r\n" + b"x" * 2_000 + b"\r\n"),
            on_down=lambda: None,
            on_failure=Watcher().failures.append,
            rng=rng,
        )
        link.start()
        await eventually(lambda: len(rng.ceilings) >= 5)
        await link.stop()
    assert rng.ceilings[:5] == [0.2, 0.4, 0.4, 0.4, 0.4]


async def test_a_server_that_is_away_is_tried_again(tmp_path):
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
        shown = repr(NatsAddress((server.url,), **right))
        assert not any(secret in shown for secret in right.values() if secret != "u")


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


async def test_an_error_is_logged_once_a_connection(tmp_path):
    watcher = Watcher()
    user = {"user": "u", "password": "p" * 12, "permissions": {"publish": ["a"]}}
    with nats_server(tmp_path, authorization={"users": [user]}) as server:
        link = link_to(watcher, server.url, user="u", password="p" * 12)
        link.start()
        client = await within(link.wait_up())
        with capture_logs() as logs:
            await client.subscribe("a", pending_msgs_limit=1)
            await client.flush()
            client.write(b"PUB a 1\r\nx\r\n" * 4 + b"PUB b 1\r\nx\r\n" * 2)
            await eventually(lambda: len(watcher.denied) == 2)
        (line,) = logs
        assert line["error"].startswith("SlowConsumerError")
        assert watcher.denied[0] == 'permissions violation for publish to "b"'
        await link.stop()
    assert watcher.failures == []


async def test_an_untrusted_certificate_is_logged_once_and_tried_again(tmp_path, monkeypatch):
    """`Client.close` of nats-py never returns after it: the link must not wait for that."""
    monkeypatch.setattr("gateway.stream.link.client._CLOSE_S", 0.05)
    certificate, other = make_certificate(tmp_path), make_certificate(tmp_path / "other")
    tls = {"cert_file": str(certificate.cert), "key_file": str(certificate.key)}
    with nats_server(tmp_path / "server", tls=tls) as server, capture_logs() as logs:
        url = server.url.replace("nats://127.0.0.1", "tls://localhost")
        rng = Recording()
        link = NatsLink(
            NatsAddress((url,), tls=other.client_context(), reconnect_wait_s=0.001),
            name="test",
            on_up=Watcher().on_up,
            on_ready=lambda _client: None,
            on_down=lambda: None,
            on_failure=Watcher().failures.append,
            rng=rng,
        )
        link.start()
        await eventually(lambda: len(rng.ceilings) >= 2)
        assert link.refused
        await link.stop()
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await connect_once(
                NatsAddress((url.replace("//", "//u:s3cr3t@"),), tls=other.client_context()),
                name="test",
            )
        assert "s3cr3t" not in str(caught.value)
    said = [line["error"] for line in logs if line["event"] == "nats_unreachable"]
    assert len(said) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in said[0]


async def test_credentials_that_can_never_work_end_the_link(tmp_path):
    watcher = Watcher()
    operator = make_operator(tmp_path)
    lines = operator.credentials.read_text().splitlines()
    operator.credentials.write_text("\n".join(line.replace("SU", "XX") for line in lines))
    with nats_server(tmp_path / "server", jetstream=None, **operator.config) as server:
        link = link_to(watcher, server.url, credentials_file=str(operator.credentials))
        link.start()
        await eventually(lambda: watcher.failures)
        assert isinstance(watcher.failures[0], ConnectError)
        await link.stop()
