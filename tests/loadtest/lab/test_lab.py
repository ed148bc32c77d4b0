"""The lab in small: storms over real sockets that pass, one that must fail, and locust."""

import asyncio
import contextlib
import json
import sys

import aiohttp
import pytest

from gateway.development import ensure_key
from loadtest.devices.credentials import Issuer
from support.commands import tidegate
from support.gateways import running_gateway, url_of
from support.servers import free_port
from support.stored import read_embedded
from support.waiting import eventually, within

SMALL = """
title = "small"
fault = "%s"
devices = 40
rate_per_s = 40
message_rate = 2.0
calm_s = 1
fault_s = 1
after_s = 0
limit_s = 60
nodes = %d
[gateway]
"admission.resume_cost" = 1.0
"admission.burst" = 5
"session.first_retry_min_ms" = 500
[objectives]
dishonoured = 0
lost = 0
duplicated = 0
%s
"""


def storm(tmp_path, fault, *, nodes=1, more="", arguments=()):
    path = tmp_path / "small.toml"
    path.write_text(SMALL % (fault, nodes, more))
    report = tmp_path / "report.html"
    # Half of it on a busy machine; it must end before pytest's own limit ends the process.
    done = tidegate("storm", path, "--report", report, *arguments, within_s=110)
    assert done.stderr == ""
    assert report.exists()
    assert report.with_suffix(".png").exists()
    return done.returncode, done.stdout


@pytest.fixture
async def small_gateway(tmp_path):
    """A gateway as the scenario starts one, on the loop of the test."""
    settings = {
        "admission__rate_per_s": 40.0,
        "admission__rate_floor_per_s": 40.0,
        "admission__burst": 5,
        "admission__resume_cost": 1.0,
        "admission__device_knock_burst": 1_000,
        "session__first_retry_min_ms": 500,
    }
    async with running_gateway(tmp_path / "data", **settings) as running:
        yield running


def where(gateway):
    """The options with which the lab finds a gateway that it did not start."""
    return [
        "--url", url_of(gateway), "--ops-url", f"http://127.0.0.1:{gateway.ops_port}",
        "--nats-url", (gateway.data_dir / "nats" / "url").read_text().strip(),
        "--key-file", gateway.data_dir / "development-jwks.json",
    ]  # fmt: skip


def verdicts(out):
    """The word of each objective, by its name."""
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines()]
    return {row[1]: row[4] for row in rows if len(row) == 6}


@pytest.mark.long
async def test_a_small_storm_on_a_gateway_of_ours_passes_beside_another_policy(
    small_gateway, tmp_path
):
    arguments = [*where(small_gateway), "--compare", "full-jitter"]
    more = "knocks_a_device = 3\n"
    status, out = await asyncio.to_thread(storm, tmp_path, "cut", more=more, arguments=arguments)
    assert status == 0, out
    assert "small: passed" in out
    assert "the same storm with full-jitter" in out
    found = verdicts(out)
    assert set(found.values()) == {"reached"}
    assert "knocks a device" in found
    assert "acknowledged messages lost" in found, "the checker reads a stream that is ours"


async def test_a_key_that_is_not_the_gateways_is_said_at_once(small_gateway, tmp_path):
    arguments = [*where(small_gateway)[:-1], ensure_key(tmp_path / "other")]
    done = await asyncio.to_thread(tidegate, "storm", "blip", "--devices", "20", *arguments)
    assert done.returncode == 2
    assert done.stderr == (
        "tidegate: the gateway believes no credential: name its key with --key-file\n"
    )


@pytest.mark.long
def test_an_objective_missed_is_an_exit_status_and_the_others_are_reached(tmp_path):
    more = "disconnects = 0\ngateway_memory_mib = 1\n"
    status, out = storm(tmp_path, "stream-outage", more=more)
    assert status == 1, out
    assert "small: failed" in out
    found = verdicts(out)
    assert found.pop("gateway memory, MiB") == "missed"
    assert set(found.values()) == {"reached"}
    assert "sessions lost beyond the fault" in found


@pytest.mark.long
def test_a_small_storm_passes_without_one_of_its_nodes(tmp_path):
    status, out = storm(tmp_path, "node-loss", nodes=2, more="disconnects = 0\n")
    assert status == 0, out


async def test_locust_runs_vehicles_as_it_runs_anything(gateway, tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless",
        "-u", "20", "-r", "20", "--host", url_of(gateway), "--message-rate", "5",
        "--first-retry-ms", "200", "--key-file", str(gateway.data_dir / "development-jwks.json"),
        "--json", "--only-summary",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await eventually(lambda: gateway.status()["devices"] == 20)
        await eventually(lambda: _stored(gateway, 100))
    finally:
        process.terminate()
        out, err = await within(process.communicate())
    assert process.returncode == 0, err.decode()
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["connect"]["num_requests"] == 20
    assert rows["ack"]["num_requests"] > 50
    assert rows["ack"]["num_failures"] == 0


async def _stored(gateway, count):
    return len(await read_embedded(gateway.data_dir)) >= count


async def test_the_page_of_locust_has_the_fields_and_they_are_obeyed(gateway, tmp_path):
    other = Issuer(tmp_path / "other.json").jwks_file  # whoever signs with this is refused
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--host", url_of(gateway),
        "--web-host", "127.0.0.1", "--web-port", str(port), "--key-file", str(other),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http:
            await eventually(lambda: _opened(http, page))
            async with http.get(page) as response:
                shown = await response.text()
            for field in ("policy", "message_rate", "first_retry_ms", "key_file"):
                assert f'"{field}"' in shown
            form = {
                "user_count": "3", "spawn_rate": "3", "host": url_of(gateway),
                "policy": "full-jitter", "message_rate": "5",
                "key_file": str(gateway.data_dir / "development-jwks.json"),
            }  # fmt: skip
            async with http.post(f"{page}/swarm", data=form) as response:
                assert (await response.json())["success"]
            await eventually(lambda: gateway.status()["devices"] == 3)
    finally:
        process.kill()
        await process.wait()


async def _opened(http, page):
    with contextlib.suppress(aiohttp.ClientError):
        async with http.get(page) as response:
            return response.status == 200
    return False
