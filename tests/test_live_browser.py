"""A real Chromium shows a real gateway. Without one, these tests are skipped; in CI they fail."""

import asyncio
import contextlib
import json
import re

import pytest
from websockets.exceptions import InvalidStatus

from support.browser import browser_page
from support.gateways import fill_calendar, running_gateway
from support.servers import free_port
from support.wire import message, raw_device

READ, OPERATE = "read-" + "r" * 24, "operate-" + "o" * 24
STORM = {"admission__burst": 1, "admission__park_ms": 0, "admission__rate_per_s": 50.0}
LIVE = "document.body && document.body.dataset.live === 'yes'"


WIDE = (
    "[...document.querySelectorAll('body *')]"
    ".filter(each => each.getBoundingClientRect().right > innerWidth + 1).length"
)
RIGHT_OF_PLOTS = (
    "Math.min(...[...document.querySelectorAll('#charts .u-wrap')]"
    ".map(each => [each, each.querySelector('.u-over')]"
    ".map(box => box.getBoundingClientRect().right))"
    ".map(([canvas, plot]) => canvas - plot))"
)
"""Pixels between a plot and the end of its canvas."""
HALF_A_TIME = 24
"""Pixels of half of `22:05:00` in the font of an axis."""
WITH_WORKERS = f"""new Promise(done => {{ const shown = show; show = event => {{
  show = shown;
  const {{ status, series }} = event;
  status.workers = [{{ ...status, worker: 1, restarts: 0 }}, {{ worker: 2, restarts: 3 }}];
  shown({{ ...event, parts: {{ 1: series }}, lanes: [[7, 0, 0, 1, 2]] }});
  const text = (id) => document.getElementById(id).innerText;
  const said = ["workers", "subline", "tables"].map(text);
  done([...said, place(status.node), {WIDE}]);
}} }})"""
"""Shows the next snapshot as if it came from two workers, of which the second gives no answer.
All is read at once: the next snapshot comes from one process again."""


def headline(word):
    return f"document.getElementById('headline').textContent.startsWith('{word}')"


async def test_the_page_says_that_there_is_a_storm_and_that_it_is_over(tmp_path):
    async with browser_page() as page, running_gateway(tmp_path, **STORM) as gateway:
        await page.go(f"http://127.0.0.1:{gateway.ops_port}/")
        await page.until(LIVE)
        await page.until(headline("Calm"))
        fill_calendar(gateway, 6.0)
        for number in range(3):
            with contextlib.suppress(InvalidStatus):
                async with raw_device(gateway, f"veh-{number}"):
                    pass
        await page.until(headline("Storm"))
        await page.run("document.getElementById('device').value = 'veh-1'; lookUp()")
        found = "document.getElementById('found').textContent"
        await page.until(f"{found}.includes('refused: admission/rate')")
        assert "default/veh-1 is not connected" in await page.run(found)
        await page.until(headline("Calm"))
        assert page.complaints == []
        base = f"http://127.0.0.1:{gateway.ops_port}/"
        assert [url for url in page.requested if not url.startswith((base, "data:"))] == []


async def test_orders_need_a_token_that_stays_in_memory(tmp_path):
    (tmp_path / "operators").write_text(f"wall read {READ}\nalice operate {OPERATE}")
    settings = {"ops__token_file": tmp_path / "operators"}
    async with browser_page() as page, running_gateway(tmp_path / "node", **settings) as gateway:
        await page.go(f"http://127.0.0.1:{gateway.ops_port}/")
        await page.until("document.getElementById('sign-in')?.hidden === false")
        await page.run("confirm = () => true")

        async def sign_in(token):
            await page.run(
                f"document.getElementById('token').value = '{token}';"
                "document.getElementById('sign-in').requestSubmit()"
            )

        async def press(text):
            await page.run(
                "[...document.querySelectorAll('#found button')]"
                f".find(each => each.textContent === '{text}').click()"
            )

        said = "document.getElementById('ordered').textContent"
        await sign_in(READ)
        await page.until(LIVE)
        async with raw_device(gateway, "veh-1") as device:
            await device.say(message(1))
            await device.hear_ack(1)
            await page.run("document.getElementById('device').value = 'veh-1'; lookUp()")
            found = "document.getElementById('found').textContent"
            await page.until(f"{found}.includes('acked up to 1')")
            await page.until(f"(lookUp(), {found}.includes('stored presence: online since'))")
            await press("Disconnect")
            await page.until(f"{said}.includes('role is read')")
            await sign_in(OPERATE)
            await page.until("token.startsWith('operate')")
            await press("Disconnect")
            await page.until(f"{said}.includes('\"disconnected\":true')")
            assert (await device.closed())[0] == 1012
        assert not any(READ in url or OPERATE in url for url in page.requested)
        assert await page.run("localStorage.length + sessionStorage.length") == 0
        ending = asyncio.create_task(gateway.basis.ending.wait())
        await page.run("give('/drain', {})")
        await ending


async def test_the_page_says_that_the_connection_is_lost_and_goes_on(tmp_path):
    async with browser_page() as page:
        port = free_port()
        async with running_gateway(tmp_path / "a", ops__port=port):
            await page.go(f"http://127.0.0.1:{port}/")
            await page.until(LIVE)
        await page.until("document.body.dataset.live === 'no'")
        assert "trying again" in await page.run("document.getElementById('link').textContent")
        async with running_gateway(tmp_path / "b", ops__port=port):
            await page.until(LIVE)


@pytest.mark.parametrize(
    ("width", "columns"), [(400, 1), pytest.param(1400, 4, marks=pytest.mark.long), (2560, 4)]
)
async def test_the_page_fits_a_phone_a_screen_and_a_wall(tmp_path, width, columns):
    async with browser_page() as page, running_gateway(tmp_path) as gateway:
        await page.size(width, 900)
        await page.go(f"http://127.0.0.1:{gateway.ops_port}/")
        await page.until(LIVE)
        await page.until("document.querySelectorAll('#charts canvas').length === 8")
        workers, told, tables, place, wide = await page.run(WITH_WORKERS)
        assert re.search(r"ready(.|\n)*gives no answer(.|\n)*3", workers)
        assert "worker 2: gives no answer" in told
        assert "worker 2, lane 1" in tables
        assert (place, wide) == ("worker 1", 0)
        assert await page.run(WIDE) == 0
        tops = "new Set([...document.querySelectorAll('#charts > *')]"
        tops += ".map(each => Math.round(each.getBoundingClientRect().top))).size"
        assert await page.run(tops) == 8 // columns
        assert await page.run(RIGHT_OF_PLOTS) >= HALF_A_TIME, "the last time would be cut"
        assert await page.run("[number(-0.0001, 3), number(-2)]") == ["0", "-2"]
        shown = await page.run("document.getElementById('tables').innerText")
        for title in ("Lanes", "Stream", "Admission", "Dead letters, by error"):
            assert title in shown
        assert page.complaints == []


async def test_hostile_text_is_shown_as_text(tmp_path):
    name = "<img src=x onerror=document.title='hacked'>"
    async with browser_page() as page, running_gateway(tmp_path) as gateway:
        await page.go(f"http://127.0.0.1:{gateway.ops_port}/")
        await page.until(LIVE)
        rows = f"table({json.dumps(name)}, [[{json.dumps(name)}, 1]])"
        await page.run(f"document.getElementById('found').append({rows})")
        assert name in await page.run("document.getElementById('found').textContent")
        assert await page.run("document.querySelectorAll('img').length") == 0
        assert await page.run("document.title") == "Tidegate"
