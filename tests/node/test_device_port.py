"""The port of the devices: what the slices of its connections leave time for."""

from gateway.stream.lanes.publisher import Publisher
from support.devices import device_of
from support.gateways import running_gateway
from support.waiting import eventually, within


async def test_the_stream_is_looked_at_between_connections_that_come_and_go(tmp_path, monkeypatch):
    looks = []
    look = Publisher.look

    def noted(publisher):
        looks.append(publisher)
        look(publisher)

    monkeypatch.setattr(Publisher, "look", noted)
    async with running_gateway(tmp_path / "gateway") as gateway:
        assert looks == []
        async with device_of(gateway, tmp_path) as device:
            await within(device.connected.wait())
            came = len(looks)
            assert came
        await eventually(lambda: len(looks) > came)
