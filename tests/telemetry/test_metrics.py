"""Names of metrics, and what Prometheus' own linter says of a page that has all of them."""

import asyncio
import os
import platform
import shutil
import subprocess
from importlib.metadata import version

import aiohttp
import pytest

from gateway.telemetry.metrics import Metrics
from support.gateways import running_gateway
from support.servers import redis_server
from support.wire import message, raw_device


def test_a_gauge_is_not_named_as_a_counter_nor_a_counter_as_a_gauge():
    metrics = Metrics()
    with pytest.raises(ValueError, match="tidegate_x_total"):
        metrics.gauge("tidegate_x_total", "X.", float)
    with pytest.raises(ValueError, match="tidegate_x:"):
        metrics.counted("tidegate_x", "X.", float)


def test_what_is_read_at_the_scrape_has_the_type_it_is_declared_with():
    metrics = Metrics()
    metrics.gauge("tidegate_a", "A.", lambda: 2.0)
    metrics.counted("tidegate_b_total", "B.", lambda: 3.0)
    metrics.choice("tidegate_c", "C.", "what", ("x", "y"), lambda: "y")
    metrics.info("tidegate_d_info", "D.", {"version": "1"})
    page = metrics.exposition()[0].decode()
    for line in (
        "# TYPE tidegate_a gauge", "tidegate_a 2.0",
        "# TYPE tidegate_b_total counter", "tidegate_b_total 3.0",
        'tidegate_c{what="x"} 0.0', 'tidegate_c{what="y"} 1.0',
        'tidegate_d_info{version="1"} 1.0',
    ):  # fmt: skip
        assert line in page.splitlines()


async def test_promtool_has_no_objection_to_a_node_of_a_fleet(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "promtool is missing: make debian"
        pytest.skip("promtool is missing, metrics are not checked: make debian")
    with redis_server() as redis:
        settings = {"cluster__redis_url": redis.url, "admission__address_knock_burst": 1}
        async with running_gateway(tmp_path, **settings) as gateway:
            async with raw_device(gateway) as device:
                await device.say(message(1))
                await device.hear_ack(1)
            async with aiohttp.ClientSession() as http:
                for _ in range(3):  # refused, and counted by reason
                    await http.get(f"http://127.0.0.1:{gateway.port}/v1/device")
                async with http.get(f"http://127.0.0.1:{gateway.ops_port}/metrics") as response:
                    page = await response.read()
    names = {"version": version("tidegate-gateway"), "python": platform.python_version()}
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(names.items()))
    assert f"tidegate_build_info{{{labels}}} 1.0" in page.decode().splitlines()
    assert b"tidegate_refused_total{" in page
    assert b"tidegate_calendar_leases_total" in page
    checked = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (checked.returncode, checked.stderr.decode(), checked.stdout.decode()) == (0, "", "")
