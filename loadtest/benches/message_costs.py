"""What a message costs a gateway."""

from typing import Final

from loadtest.benches import figures
from loadtest.benches.rig import Bench
from loadtest.devices.fleet import Meter
from loadtest.servers import proc
from loadtest.servers.gateway import GatewayServer
from loadtest.waiting import until

_DEVICES: Final = 100
_WINDOW: Final = 100
WARM_SHARE: Final = 0.1
"""Share of the messages or knocks of a turn that comes before the measurement."""
_ANSWER_TIMEOUT_S: Final = 60.0


async def cost_of_messages(bench: Bench, gateway: GatewayServer, count: int) -> dict[str, float]:
    """CPU of the gateway and of its nats-server, for a message of devices with full windows.

    Returns:
        Microseconds, by the name of the figure.

    Raises:
        TargetError: the gateway did not answer as it should.
    """
    meter = Meter(_WINDOW)
    async with bench.gateway_devices(_DEVICES, meter).connected(gateway.port) as devices:
        for device in devices:
            device.top_up()
        await _acked(meter, int(count * WARM_SHARE))
        pids = gateway.pids
        before, first = [proc.cpu_s(pid) for pid in pids], meter.messages
        await _acked(meter, first + count)
        after, last = [proc.cpu_s(pid) for pid in pids], meter.messages
    own, nats = [
        (end - start) / (last - first) * 1e6 for start, end in zip(before, after, strict=True)
    ]
    return {figures.MESSAGE: own, figures.MESSAGE_NATS: nats}


async def _acked(meter: Meter, count: int) -> None:
    await until(lambda: meter.messages >= count, f"{count:,} acks", _ANSWER_TIMEOUT_S)
