"""The operators' port and commands against a gateway that serves devices."""

import asyncio
import json

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from gateway.ops.live_page import HISTORY_MAX
from loadtest.servers.certificates import make_certificate
from support.commands import tidegate
from support.gateways import fill_calendar, running_gateway, token_for
from support.processes import GatewayProcess
from support.waiting import eventually, within
from support.wire import message, raw_device


async def post(gateway, page, document, **headers):
    url = f"http://127.0.0.1:{gateway.ops_port}{page}"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=document, headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_a_drain_asked_for_twice_still_gives_everybody_a_slot(tmp_path):
    async with running_gateway(tmp_path, drain__rate_per_s=2.0) as gateway:
        async with raw_device(gateway, "veh-1") as one, raw_device(gateway, "veh-2") as two:
            stopping = asyncio.create_task(_stopped(gateway))
            for _ in range(3):
                assert (await post(gateway, "/drain", {}))[0] == 202
            for device in (one, two):
                assert (await device.hear_named("goaway"))["reason"] == "drain"
                assert (await device.closed())[0] == 1012
            await within(stopping)


async def test_now_cuts_a_drain_short(tmp_path):
    async with running_gateway(tmp_path, drain__rate_per_s=0.001) as gateway:
        async with raw_device(gateway, "veh-1"), raw_device(gateway, "veh-2"):
            stopping = asyncio.create_task(_stopped(gateway))
            assert (await post(gateway, "/drain", {}))[0] == 202
            assert (await post(gateway, "/drain", {"now": True}))[0] == 202
            await within(stopping)


async def _stopped(gateway):
    """What `Gateway.run` does when it is told to stop."""
    await gateway.basis.ending.wait()
    await gateway.stop()


async def test_a_page_under_a_foreign_name_neither_revokes_nor_drains(gateway):
    document = {"until": 4_000_000_000, "tenant": "default", "device": "veh-1"}
    origin = f"http://attacker.example:{gateway.ops_port}"
    host = {"Host": f"attacker.example:{gateway.ops_port}", "Origin": origin}
    assert (await post(gateway, "/revoke", document, **host))[0] == 421
    assert (await post(gateway, "/drain", {}, **host))[0] == 421
    async with raw_device(gateway, "veh-1") as device:
        await device.say(message(1))
        await device.hear_ack(1)


async def test_a_revocation_is_listed_undone_and_its_undoing_survives_a_restart(tmp_path):
    gateway = GatewayProcess(tmp_path)

    def knocks(stdin='{"type":"t","data":1}\n'):
        return tidegate(
            *("device", "veh-1", "--url", gateway.url, "--data-dir", gateway.data_dir), stdin=stdin
        )

    async def run(*arguments):
        ops = f"http://127.0.0.1:{gateway.ops_port}"
        return await asyncio.to_thread(tidegate, "revoke", *arguments, "--ops-url", ops)

    gateway.start()
    try:
        assert (await run("--device", "veh-1")).stdout.startswith("revoked on this node")
        await run("--jti", "abc", "--hours", "1")
        listed = [json.loads(line) for line in (await run("--list")).stdout.splitlines()]
        assert [sorted(entry) for entry in listed] == [
            ["jti", "until"],
            ["device", "tenant", "until"],
        ]
        assert listed[1]["device"] == "veh-1"
        assert "revoked" in (await asyncio.to_thread(knocks)).stderr
        done = await run("--device", "veh-1", "--undo")
        assert (done.stdout, done.stderr) == ("may come in again on this node\n", "")
        assert "was not revoked" in (await run("--device", "veh-1", "--undo")).stderr
        assert (await asyncio.to_thread(knocks)).returncode == 0
        gateway.signal(15)
        await gateway.ended()
        gateway.start()
        assert (await asyncio.to_thread(knocks)).returncode == 0
        assert [json.loads(line)["jti"] for line in (await run("--list")).stdout.splitlines()] == [
            "abc"
        ]
        assert "takes nothing but" in (await run("--list", "--undo")).stderr
    finally:
        gateway.stop()


async def test_disconnect_ends_a_session_after_its_acks_and_the_device_may_return(gateway):
    device = {"tenant": "default", "device": "veh-1"}
    assert await post(gateway, "/disconnect", device) == (200, {"disconnected": False})
    async with raw_device(gateway, "veh-1") as session:
        await session.say(message(1))
        await session.hear_ack(1)
        assert await post(gateway, "/disconnect", device) == (200, {"disconnected": True})
        assert (await session.hear_named("goaway"))["reason"] == "disconnect"
        assert (await session.closed())[0] == 1012
    async with raw_device(gateway, "veh-1") as again:
        await again.say(message(1))
        await again.hear_ack(1)


async def test_the_commands_show_a_token_over_tls_and_are_refused_without(tmp_path):
    files = make_certificate(tmp_path / "ops")
    tokens, mine = tmp_path / "operators", tmp_path / "mine"
    tokens.write_text("alice operate " + "a" * 24)
    mine.write_text("a" * 24 + "\n")
    async with running_gateway(
        tmp_path / "node",
        ops__token_file=tokens,
        ops__tls_cert_file=files.cert,
        ops__tls_key_file=files.key,
    ) as gateway:
        options = ["--ops-url", f"https://127.0.0.1:{gateway.ops_port}", "--ca-file", files.cert]

        async def run(*arguments, **environment):
            return await asyncio.to_thread(tidegate, *arguments, *options, **environment)

        refused = await run("revoke", "--list")
        assert refused.returncode == 1
        assert "this needs a bearer token (see --token-file" in refused.stderr
        assert (await run("revoke", "--list", "--token-file", mine)).returncode == 0
        gone = await run("disconnect", "veh-1", "--token-file", mine)
        assert gone.stderr == "tidegate: default/veh-1 is not connected\n"
        async with raw_device(gateway, "veh-1") as session:
            done = await run("disconnect", "veh-1", "--token-file", mine)
            assert (done.stdout, done.stderr) == ("disconnected\n", "")
            assert (await session.closed())[0] == 1012
        untrusted = await asyncio.to_thread(tidegate, "revoke", "--list", *options[:2])
        assert "see --ca-file" in untrusted.stderr
        tokens.write_text("alice operate " + "b" * 24)
        gateway.operators.access.reload()
        assert "no such token" in (await run("revoke", "--list", "--token-file", mine)).stderr


async def test_rate_changes_r_shows_it_and_takes_it_back(gateway):
    async def run(*arguments):
        ops = f"http://127.0.0.1:{gateway.ops_port}"
        return await asyncio.to_thread(tidegate, "rate", *arguments, "--ops-url", ops)

    changed = await run("200", "--burst", "7", "--for", "10m")
    assert (changed.stdout, changed.stderr) == ("changed on this node for 10m\n", "")
    admission = gateway.status()["admission"]
    assert (admission["rate_per_s"], admission["burst"]) == (200, 7)
    assert gateway.metrics.value("tidegate_steered_settings") == 2
    shown = (await run()).stdout
    assert "rate_per_s: 200" in shown
    assert "burst is 7.0 until 20" in shown
    assert (await run("--back")).stdout == "the settings hold again on this node\n"
    assert gateway.status()["admission"]["rate_per_s"] == 500
    assert "must be like 90s" in (await run("200", "--for", "long")).stderr
    assert "takes no value" in (await run("200", "--back")).stderr
    assert "HTTP 400" in (await run("--log-level", "loud")).stderr


async def test_a_fresh_page_with_a_full_history_takes_less_than_150_kib(gateway):
    page, size = gateway.operators.pages[0], 0
    for _ in range(HISTORY_MAX):
        await page.step()
    base = f"http://127.0.0.1:{gateway.ops_port}"
    async with aiohttp.ClientSession() as http:
        for route in page.routes():
            async with http.get(base + route.path) as response:
                if route.path != "/events":
                    size += len(await response.read())
                    continue
                first = await within(response.content.readuntil(b"\n\n"))
                assert len(json.loads(first.removeprefix(b"data: "))["history"]["rows"]) == 300
                size += len(first) + len(await within(response.content.readuntil(b"\n\n")))
    assert 60 * 1024 < size < 150 * 1024


async def look_up(gateway, device):
    return json.loads((await _whois(gateway, device, "--json")).stdout)


async def _whois(gateway, device, *more):
    ops = f"http://127.0.0.1:{gateway.ops_port}"
    return await asyncio.to_thread(tidegate, "whois", device, "--ops-url", ops, *more)


async def refused(gateway, device, **options):
    with pytest.raises(InvalidStatus):
        async with raw_device(gateway, device, **options):
            pass


async def test_whois_says_where_a_device_is_and_how_it_went(gateway):
    async with raw_device(gateway, "veh-1") as device:
        await device.say([message(1), message(2)])
        await device.hear_ack(2)
        session = (await look_up(gateway, "veh-1"))["session"]
        assert (session["acked"], session["unsettled"]) == (2, 0)
        assert (session["state"], session["leaving"]) == ("established", False)
        assert 0 <= session["last_message_s_ago"] < 60
        assert session["credit"] >= 32
        assert session["id"] == device.welcome["session"]
        assert 0 <= session["last_ack_s_ago"] < 60
        said = (await _whois(gateway, "veh-1")).stdout
        assert f"default/veh-1 is connected to node {gateway.basis.node} (established)" in said
        assert f"(established), session {session['id']}" in said
        assert "acked up to 2, credit" in said
        assert "last ack " in said
    await eventually(lambda: not len(gateway.basis.fleet))
    said = (await _whois(gateway, "veh-1")).stdout
    assert said.startswith("default/veh-1 is not connected\n")
    assert "closed: device, by node" in said
    assert (await look_up(gateway, "veh-2"))["refusals"] == []


async def test_whois_shows_a_device_that_waits_in_the_handshake_or_has_not_said_hello(tmp_path):
    limits = {"admission__burst": 1, "admission__park_ms": 10_000}
    limits |= {"limits__hello_timeout_ms": 60_000}
    async with running_gateway(tmp_path, **limits) as gateway:
        async with raw_device(gateway, "quiet", greet=False) as device:
            said = (await _whois(gateway, "quiet")).stdout
            assert "(greeting)" in said
            assert "it is admitted and has not said hello yet" in said
            assert (await look_up(gateway, "quiet"))["session"]["last_ack_s_ago"] is None
            await device.greet()
            assert "(established)" in (await _whois(gateway, "quiet")).stdout
        fill_calendar(gateway, 9.0)
        knocking = asyncio.create_task(raw_device(gateway, "parked").__aenter__())
        here = gateway.admission.here
        await eventually(lambda: here.describe("default", "parked")["parked"])
        assert here.describe("default", "parked")["session"] is None
        knocking.cancel()
        await eventually(lambda: not here.describe("default", "parked")["parked"])


async def test_whois_says_why_a_device_was_refused_for_each_reason(tmp_path):
    limits = {"admission__device_knock_burst": 2, "admission__device_knocks_per_s": 0.001}
    limits |= {"admission__burst": 1, "admission__park_ms": 0}
    async with running_gateway(tmp_path, **limits) as gateway:
        fill_calendar(gateway, 30.0)
        await refused(gateway, "rate")
        gateway.hold.look = lambda: None  # it would release the hold in a moment
        gateway.devices.gate.hold()
        await refused(gateway, "overload")
        await refused(gateway, "overload")
        await refused(gateway, "overload")
        revoked = {"tenant": "default", "device": "revoked", "until": 4_000_000_000}
        await post(gateway, "/revoke", revoked)
        await refused(gateway, "revoked")
        expired = token_for(gateway, "expired", lifetime_s=-600)
        await refused(gateway, "expired", token=expired)
        gateway.devices.gate.draining = True
        await refused(gateway, "draining")
        gateway.devices.gate.draining = False
        said = {}
        for device in ("rate", "overload", "revoked", "expired", "draining"):
            found = await look_up(gateway, device)
            said[device] = [
                (each["error"], each.get("reason"), each["verified"]) for each in found["refusals"]
            ]
            print((await _whois(gateway, device)).stdout)
        assert said == {
            "rate": [("admission", "rate", True)],
            "overload": [
                ("device_rate", None, True),
                ("admission", "overload", True),
                ("admission", "overload", True),
            ],
            "revoked": [("revoked", None, True)],
            "expired": [("credential", "expired", False)],
            "draining": [("admission", "draining", False)],
        }
        assert (await look_up(gateway, "revoked"))["revoked_until"].startswith("2096-")
        assert (await look_up(gateway, "rate"))["refusals"][0]["retry_ms"] > 20_000
