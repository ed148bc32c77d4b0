"""The benchmark of the live page at a small scale: what it prints, and that lost pages count."""

import pytest

from loadtest.benches import pages
from loadtest.benches.watchers import Watchers, history_of
from loadtest.errors import TargetError
from support.browser import chromium_program
from support.waiting import eventually

SMALL = ["--devices", "60", "--rate", "20", "--turns", "1", "--connected", "20"]


def run(capsys, *sections):
    """What it prints, however busy this machine is."""
    with pytest.raises(SystemExit) as end:
        pages.main([*sections, *SMALL])
    assert end.value.code in {0, 1}
    return capsys.readouterr().out


@pytest.mark.long
def test_a_storm_with_pages_and_a_look_up_are_judged(capsys):
    said = run(capsys, "storm", "look-up")
    for verdict in (
        "recovery over N/R with 20 pages: ",
        "CPU of the pages: ",
        "loop lag p99, with / without: ",
        "longest look-up: ",
    ):
        assert verdict in said
    assert said.count("wanted at most") == 4


@pytest.mark.long
def test_a_fresh_browser_is_judged(capsys):
    chromium_program()
    said = run(capsys, "ready")
    assert "page ready: " in said
    assert "page, KiB: " in said


def test_an_unknown_section_is_named(capsys):
    with pytest.raises(SystemExit):
        pages.main(["sorm"])
    assert "unknown section sorm" in capsys.readouterr().err


async def test_a_page_that_lost_its_stream_is_no_open_page(gateway):
    with pytest.raises(TargetError, match="1 of 1 pages lost"):
        async with Watchers(gateway.ops_port, 1) as watchers:
            await eventually(lambda: watchers.snapshots[0] > 1)
            await gateway.operators.port.stop()
            await eventually(lambda: watchers.ended)


async def test_the_history_has_the_loop_lag_of_each_second(gateway):
    await gateway.operators.pages[0].step()
    history = await history_of(gateway.ops_port)
    assert history
    assert all(each["loop_lag_ms"] >= 0 for each in history)
