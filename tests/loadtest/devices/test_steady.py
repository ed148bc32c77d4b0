"""Devices that go on sending from a process of their own: at a real gateway, and without one."""

import pytest

from loadtest.devices.child import DeviceProcess
from loadtest.devices.steady import SteadyDevices
from loadtest.errors import TargetError
from support.gateways import token_for
from support.servers import free_port
from support.waiting import eventually, within


@pytest.mark.long  # it starts a process
async def test_they_send_and_say_what_they_saw(gateway):
    tokens = [(name, token_for(gateway, name)) for name in ("a", "b")]
    async with SteadyDevices(gateway.port, tokens, rate_per_s=100.0, connect_per_s=100.0) as steady:

        async def acked():
            seen = await steady.seen()
            assert seen.lost == 0
            return seen.acked

        await eventually(acked)


@pytest.mark.long  # it starts a process
async def test_without_a_gateway_the_parent_hears_of_it_and_no_process_is_left(monkeypatch):
    started = []
    start = DeviceProcess.start

    async def noted(module):
        started.append(await start(module))
        return started[-1]

    monkeypatch.setattr(DeviceProcess, "start", noted)
    steady = SteadyDevices(free_port(), [("a", "t")], rate_per_s=1.0, connect_per_s=1.0)
    with pytest.raises(TargetError, match=r"loadtest\.devices\.steady has ended"):
        await within(steady.__aenter__())
    assert [process._process.returncode is not None for process in started] == [True]
