"""Messages of other nodes about devices."""

import pytest

from gateway.cluster.devices import DeviceRegistry


class Link:
    up = True

    def key(self, name):
        return f"tidegate:{name}"


@pytest.fixture
def newer():
    return []


@pytest.fixture
def registry(newer):
    return DeviceRegistry(
        Link(),
        node="a",
        alive_key="tidegate:nodes",
        clock=lambda: 0.0,
        present=list,
        on_newer=lambda key, fence: newer.append((key, fence)),
    )


async def test_a_takeover_names_a_device_and_its_fence(registry, newer):
    registry.on_message("takeover t/veh-1 1700000000000000")
    assert newer == [(("t", "veh-1"), 1_700_000_000_000_000)]


@pytest.mark.parametrize(
    "text",
    ["", "takeover", "takeover veh 1", "takeover t/veh x", "takeover t/veh -1", "rights",
     "takeover t/veh " + "9" * 5_000, "takeover t/veh \u0661"],
)  # fmt: skip
async def test_what_is_no_takeover_ends_nothing(registry, newer, text):
    registry.on_message(text)
    assert newer == []
