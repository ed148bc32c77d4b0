"""A node on the NATS of its operators: rights, outages, certificates, a stream that is gone."""

import asyncio
import json
from pathlib import Path

import nats
import pytest
from structlog.testing import capture_logs

from gateway.stream.server.rights import Rights, rights_of
from gateway.stream.server.roles import Role
from loadtest.servers.certificates import make_certificate
from support.asking import ask_device
from support.eventstream import add_stream
from support.gateways import listening_gateway, running_gateway
from support.refusals import knock
from support.servers import nats_server as operators_server
from support.waiting import eventually, within
from support.wire import message, raw_device

GATEWAY = rights_of(Role.GATEWAY)
CONFIG = Path(__file__).parents[1] / "config"


def limited_user(*publish, subscribe=GATEWAY.subscribe):
    """The configuration of a server with a user who has exactly these rights."""
    permissions = Rights(publish, subscribe, responses=True).permissions()
    gateway = {"user": "gateway", "password": "p" * 12, "permissions": permissions}
    operator = {"user": "operator", "password": "o" * 12}
    return {"authorization": {"users": [gateway, operator]}}


def as_gateway(server):
    return {
        "nats__urls": (server.url,),
        "nats__user": "gateway",
        "nats__password": "p" * 12,
        "stream__durability": "stream",
    }


async def test_the_permissions_that_the_settings_name_are_enough(tmp_path):
    for page in [(CONFIG / name).read_text() for name in ("gateway.toml", "README.md")]:
        assert [s for s in (*GATEWAY.publish, *GATEWAY.subscribe) if s not in page] == []
    with operators_server(tmp_path / "nats", **limited_user(*GATEWAY.publish)) as server:
        async with running_gateway(tmp_path, **as_gateway(server)) as gateway:
            async with raw_device(gateway, greet=False) as device:
                await device.say({"hello": {"outbox": "box", "oldest": 1, "age_ms": 600_000}})
                assert (await device.hear_named("welcome"))["resume"]["seq"] == 0
                await device.say([message(1), message(2, message_type="not ok")])
                await device.hear_ack(2)
                operator = await nats.connect(server.url, user="operator", password="o" * 12)
                asking = asyncio.create_task(ask_device(operator, b'{"type":"lock"}'))
                command = await device.hear_named("command")
                await device.say({"result": {"id": command["id"], "ok": True}})
                assert json.loads((await within(asking)).data)["ok"]
                await operator.close()
            page = gateway.status()["stream"]
            assert (page["last_error"], page["denied"], page["missing_rights"]) == (None, [], [])


@pytest.mark.parametrize("kind", ["publish", "subscribe"])
async def test_each_missing_right_is_named_at_once_and_nobody_is_admitted(tmp_path, kind):
    for number, missing in enumerate(getattr(GATEWAY, kind)):
        if missing.split(".")[-1] in ("DEADLETTERS", "COMMANDS", "PRESENCE"):
            continue  # as EVENTS; tests/stream/test_checkup.py takes every right away
        allowed = {"publish": list(GATEWAY.publish), "subscribe": list(GATEWAY.subscribe)}
        allowed[kind].remove(missing)
        config = limited_user(*allowed["publish"], subscribe=tuple(allowed["subscribe"]))
        directory = tmp_path / str(number)
        with operators_server(directory / "nats", **config) as server, capture_logs() as logs:
            async with listening_gateway(directory, **as_gateway(server)) as gateway:
                if "STREAM.CREATE" in missing:  # tried when it is needed
                    await eventually(lambda g=gateway: g.status()["stream"]["denied"])
                    assert missing.lower() in str(gateway.status()["stream"]["denied"])
                else:
                    wanted = [f"{kind} {missing}"]
                    await eventually(lambda g=gateway: g.not_ready() == "nats_rights")
                    assert gateway.status()["stream"]["missing_rights"] == wanted
                    said = [line for line in logs if line["event"] == "nats_rights_missing"]
                    assert [line["missing"] for line in said] == [wanted]
                assert await knock(gateway) == (503, "admission", "overload")


async def test_a_right_that_is_granted_later_makes_the_node_ready(tmp_path):
    without = [subject for subject in GATEWAY.publish if subject != "events.>"]
    with operators_server(tmp_path / "nats", **limited_user(*without)) as server:
        async with listening_gateway(tmp_path, **as_gateway(server)) as gateway:
            await eventually(lambda: gateway.not_ready() == "nats_rights")
            server.reconfigure(**limited_user(*GATEWAY.publish))
            await within(gateway.ready())
            async with raw_device(gateway) as device:
                await device.say(message(1))
                await device.hear_ack(1)


async def test_without_nats_the_port_is_open_and_refuses_with_a_time(tmp_path):
    with operators_server(tmp_path / "nats") as server:
        server.kill()
        settings = {"nats__urls": (server.url,), "stream__durability": "stream"}
        with capture_logs() as logs:
            async with listening_gateway(tmp_path, **settings) as gateway:
                assert await knock(gateway) == (503, "admission", "overload")
                assert gateway.not_ready() == "nats_disconnected"
                await eventually(lambda: [e for e in logs if e["event"] == "nats_unreachable"])
                server.start()
                await within(gateway.ready())
                assert gateway.not_ready() is None
                async with raw_device(gateway) as device:
                    await device.say(message(1))
                    await device.hear_ack(1)


async def test_a_server_that_refuses_us_is_said_with_its_reason_once(tmp_path):
    with operators_server(tmp_path / "nats", **limited_user(*GATEWAY.publish)) as server:
        settings = as_gateway(server) | {"nats__password": "wrong-password"}
        with capture_logs() as logs:
            async with listening_gateway(tmp_path, **settings) as gateway:
                await eventually(lambda: gateway.not_ready() == "nats_refused")
                assert "Authorization" in gateway.status()["stream"]["last_error"]
                said = [line for line in logs if line["event"] == "nats_unreachable"]
                assert len(said) == 1
                assert "Authorization" in said[0]["error"]
                assert "wrong-password" not in str(logs)


async def test_an_untrusted_certificate_is_said_with_its_reason(tmp_path):
    files = make_certificate(tmp_path / "tls")
    other = make_certificate(tmp_path / "other")
    tls = {"cert_file": str(files.cert), "key_file": str(files.key)}
    with operators_server(tmp_path / "nats", tls=tls) as server:
        url = server.url.replace("nats://127.0.0.1", "tls://localhost")
        settings = {"nats__urls": (url,), "nats__tls_ca_file": str(other.cert)}
        with capture_logs() as logs:
            async with listening_gateway(tmp_path, **settings) as gateway:
                await eventually(lambda: gateway.not_ready() == "nats_refused")
                assert "CERTIFICATE_VERIFY_FAILED" in gateway.status()["stream"]["last_error"]
        said = [line["error"] for line in logs if line["event"] == "nats_unreachable"]
        assert len(said) == 1
        assert "CERTIFICATE_VERIFY_FAILED" in said[0]


async def test_a_stream_that_is_gone_is_named_and_missed_no_more_once_it_is_back(tmp_path):
    with operators_server(tmp_path / "nats") as server:
        settings = {
            "nats__urls": (server.url,),
            "stream__durability": "stream",
            "stream__deny_delete": False,
        }
        async with running_gateway(tmp_path, **settings) as gateway, raw_device(gateway) as device:
            operator = await nats.connect(server.url)
            context = operator.jetstream()
            config = (await context.stream_info("EVENTS")).config
            await context.delete_stream("EVENTS")
            await device.say(message(1))
            await eventually(lambda: gateway.not_ready() == "no_stream")
            assert gateway.status()["stream"]["missing_streams"] == ["EVENTS"]
            await add_stream(context, config)
            await eventually(lambda: gateway.not_ready() is None)
            await device.hear_ack(1)
            await operator.close()
