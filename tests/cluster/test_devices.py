"""Messages of other nodes about devices."""

import pytest

from gateway.cluster.admission_news import AdmissionNews
from gateway.cluster.devices import DeviceRegistry

HOLDER = b"12345678"


class Link:
    up = True

    def key(self, name):
        return f"tidegate:{name}"


class Sessions:
    def __init__(self):
        self.told = []

    def present(self):
        return []

    def newer_elsewhere(self, key, fence):
        self.told.append((key, fence))

    def raised(self, key, given, fence):
        self.told.append((key, given, fence))


@pytest.fixture
def sessions():
    return Sessions()


@pytest.fixture
def registry(sessions):
    return DeviceRegistry(
        Link(),
        node="a",
        alive_key="tidegate:nodes",
        fleet_key="tidegate:fleet",
        fence_source="a",
        clock=lambda: 0.0,
        sessions=sessions,
        news=AdmissionNews(Link(), node="a", on_admitted=list),
    )


async def test_a_takeover_names_a_device_and_its_fence(registry, sessions):
    registry.on_message("takeover t/veh-1 1700000000000000")
    assert sessions.told == [(("t", "veh-1"), 1_700_000_000_000_000)]


async def test_a_raise_names_a_device_and_both_fences(registry, sessions):
    registry.on_message("raised t/veh-1 1700000000000000 1700000000000009")
    assert sessions.told == [(("t", "veh-1"), 1_700_000_000_000_000, 1_700_000_000_000_009)]


async def test_a_session_that_left_while_it_was_raised_is_removed(registry):
    """Redis knows it by the fence to which it was raised."""
    sent = []

    async def script(name, _keys, arguments):
        sent.append((name, *arguments[6:]))
        if len(sent) == 1:
            registry.departed(("t", "veh-1"), 7)  # while Redis answers
            return [[], ["t/veh-1", "7", "9"]]
        return [[], []]

    registry._link.script = script
    registry.arrived(("t", "veh-1"), 7, HOLDER)
    await registry._flush()
    assert sent == [("register", "t/veh-1 7", "")]  # what changes meanwhile is for the next flush
    await registry._flush()
    assert sent == [("register", "t/veh-1 7", ""), ("register", "", "t/veh-1 9")]


async def test_devices_that_came_and_devices_that_left_share_calls_of_bounded_size(registry):
    sent = []

    async def script(_name, _keys, arguments):
        sent.append([len(each.split()) // 2 for each in arguments[6:]])
        return [[], []]

    registry._link.script = script
    for number in range(700):
        registry.arrived(("t", f"came-{number}"), 7, HOLDER)
        registry.departed(("t", f"left-{number}"), 7)
    await registry._flush()
    assert sent == [[500, 0], [200, 300], [0, 400]]


@pytest.fixture
def sent(registry):
    """What Redis is told, call by call: the devices that came, and those that left."""
    calls = []

    async def script(_name, _keys, arguments):
        calls.append(tuple(arguments[6:]))
        return [[], []]

    registry._link.script = script
    return calls


async def test_redis_does_not_hear_of_a_session_that_ended_before_it_could(registry, sent):
    registry.arrived(("t", "veh-1"), 7, HOLDER)
    registry.departed(("t", "veh-1"), 7)
    await registry._flush()
    assert sent == []


async def test_a_short_session_does_not_hide_that_the_one_before_it_left(registry, sent):
    key = ("t", "veh-1")
    registry.arrived(key, 7, HOLDER)
    await registry._flush()
    registry.departed(key, 7)
    registry.arrived(key, 8, HOLDER)
    registry.departed(key, 8)
    await registry._flush()
    assert sent == [("t/veh-1 7", ""), ("", "t/veh-1 7")]


async def test_a_session_that_follows_another_takes_its_place_in_redis(registry, sent):
    key = ("t", "veh-1")
    registry.arrived(key, 7, HOLDER)
    await registry._flush()
    registry.departed(key, 7)
    registry.arrived(key, 8, HOLDER)
    await registry._flush()
    registry.departed(key, 8)
    await registry._flush()
    assert sent == [("t/veh-1 7", ""), ("t/veh-1 8", ""), ("", "t/veh-1 8")]


@pytest.mark.parametrize(
    "text",
    ["", "takeover", "takeover veh 1", "takeover t/veh x", "takeover t/veh -1", "rights",
     "takeover t/veh " + "9" * 5_000, "takeover t/veh \u0661", "raised t/veh 1", "raised veh 1 2",
     "raised t/veh x 1", "raised t/veh 1 -2"],
)  # fmt: skip
async def test_what_is_no_message_changes_nothing(registry, sessions, text):
    registry.on_message(text)
    assert sessions.told == []
