"""A drive is a seed, and its signals are those of a vehicle."""

import json
import random

from loadtest.devices.telemetry import Drive


def drive(seed, messages=500):
    vehicle, samples = Drive(random.Random(seed)), []
    for _ in range(messages):
        vehicle.advance(10.0)
        samples.append(vehicle.sample())
    return samples


def test_a_seed_is_a_drive():
    assert drive(1) == drive(1)
    assert drive(1) != drive(2)


def test_signals_are_those_of_a_vehicle():
    for kind, encoded in drive(3):
        signals = json.loads(encoded)
        assert all(name.startswith("Vehicle.") for name in signals)
        if kind == "vehicle.drive":
            assert 0 <= signals["Vehicle.Speed"] <= 130
            soc = signals["Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"]
            assert 9 <= soc <= 95
            assert -90 <= signals["Vehicle.CurrentLocation.Latitude"] <= 90


def test_a_drive_moves_and_has_faults():
    samples = drive(4, 2_000)
    kinds = {kind for kind, _ in samples}
    assert kinds == {"vehicle.drive", "vehicle.faults"}
    places = {s for kind, s in samples if kind == "vehicle.drive"}
    assert len(places) > 1_000
    assert any(b'DTCCount":1' in s for kind, s in samples if kind == "vehicle.faults")
