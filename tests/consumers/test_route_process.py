"""The process of `tidegate route`."""

import asyncio
import contextlib
import json
import signal
import subprocess
import time
import urllib.request

import pytest
from nats.js.api import StreamConfig
from typer.testing import CliRunner

from gateway.commands.tree import app
from gateway.consumers.lease import Lease
from gateway.consumers.lease_bucket import LeaseBucket
from loadtest.servers.certificates import make_certificate
from support.commands import environment, spawned_tidegate
from support.eventstream import linked, publish_events
from support.rule_streams import LOW, connected, make_target, payloads
from support.servers import free_port, nats_server
from support.waiting import eventually


def events_file(directory, to="nats:alerts.{device}"):
    file = directory / "events.toml"
    when = json.dumps(LOW)
    file.write_text(f"[[rule]]\nname = 'low'\nfrom = 'start'\nto = '{to}'\nwhen = '{when}'\n")
    return file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_process_runs_the_rules_and_gives_them_up(stream, tmp_path, number):
    await make_target(stream)
    await publish_events(stream, [{"soc": 1}])
    arguments = ["route", "-e", str(events_file(tmp_path)), "--ops-port", "0"]
    with spawned_tidegate(*arguments, "--nats-url", stream.url) as process:
        assert await payloads(stream, 1) == [1]
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, 30) == 0
    async with linked(stream) as link:
        await link.wait_up()
        lease = Lease(LeaseBucket(link), "low", "next", time.monotonic)
        assert await lease.take()  # at once: the process has released it
        assert lease.record.position.seq == 1


async def test_sighup_puts_a_new_certificate_of_the_ops_port_in_force(stream, tmp_path):
    await make_target(stream)
    files, port = make_certificate(tmp_path / "tls"), free_port()
    variables = environment(
        TIDEGATE_OPS__TLS_CERT_FILE=str(files.cert), TIDEGATE_OPS__TLS_KEY_FILE=str(files.key)
    )
    arguments = ["route", "-e", str(events_file(tmp_path)), "--ops-port", str(port)]

    def page(made):
        """The metrics, or nothing while the port is closed or its certificate is another one."""
        url = f"https://127.0.0.1:{port}/metrics"
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=5, context=made.client_context()).read()
        return b""

    async def trusted(made):
        return await eventually(lambda: asyncio.to_thread(page, made), "a trusted certificate")

    with spawned_tidegate(*arguments, "--nats-url", stream.url, env=variables) as process:
        assert b"tidegate_operators_certificate_expires_seconds" in await trusted(files)
        renewed = make_certificate(tmp_path / "tls")
        assert page(renewed) == b""
        process.send_signal(signal.SIGHUP)
        await trusted(renewed)


async def test_a_process_whose_target_is_refused_ends_with_the_reason(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        async with connected(server) as client:
            subjects = ["events.>", "alerts.>"]
            await client.jetstream().add_stream(StreamConfig("EVENTS", subjects=subjects))
        arguments = ["route", "-e", str(events_file(tmp_path)), "--ops-port", "0"]
        arguments += ["--nats-url", server.url]
        with spawned_tidegate(*arguments, stderr=subprocess.PIPE) as process:
            assert await asyncio.to_thread(process.wait, 30) == 1
            assert "rule low: EVENTS holds alerts.*" in process.stderr.read()


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", (), "no [[rule]]"),
        ("[[rule", (), "events.toml"),
        (None, ("--only", "x"), "there are low"),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path, content, arguments, said):
    file = events_file(tmp_path)
    if content is not None:
        file.write_text(content)
    result = CliRunner().invoke(app, ["route", "-e", str(file), *arguments])
    assert result.exit_code == 1
    assert said in result.stderr
