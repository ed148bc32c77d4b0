"""Vehicle telemetry from a seeded random drive, with the signal names of COVESA's VSS.

Names and units are those of the Vehicle Signal Specification 5: speed in km/h, state of charge in
percent, position in degrees, faults as OBD codes. Pure: the same seed drives the same way.
"""

import json
import math
import random
from typing import Final

_FAULTS: Final = ("P0A1F", "P0AFA", "U0100", "B1342", "C0040")
_KM_PER_DEGREE: Final = 111.3
_KWH_PER_KM: Final = 0.17
_BATTERY_KWH: Final = 60.0


class Drive:
    """The drive of one vehicle."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._latitude = rng.uniform(47.5, 54.5)
        self._longitude = rng.uniform(7.0, 14.0)
        self._heading = rng.uniform(0, 360)
        self._speed_kmh = rng.uniform(0, 90)
        self._wanted_kmh = rng.choice((0, 30, 50, 80, 120))
        self._soc = rng.uniform(25, 95)
        self._odometer_km = rng.uniform(500, 150_000)
        self._faults: list[str] = []

    def advance(self, seconds: float) -> None:
        """Drive on for so many seconds."""
        rng = self._rng
        if rng.random() < 0.1:
            self._wanted_kmh = rng.choice((0, 30, 50, 80, 120))
        self._speed_kmh += (self._wanted_kmh - self._speed_kmh) * min(1.0, seconds / 8)
        self._heading = (self._heading + rng.gauss(0, 6)) % 360
        km = self._speed_kmh * seconds / 3_600
        self._odometer_km += km
        radians = math.radians(self._heading)
        self._latitude += km * math.cos(radians) / _KM_PER_DEGREE
        scale = _KM_PER_DEGREE * math.cos(math.radians(self._latitude))
        self._longitude += km * math.sin(radians) / scale
        self._soc -= km * _KWH_PER_KM / _BATTERY_KWH * 100
        if self._soc < 10:
            self._soc = 80.0  # charged
        if rng.random() < 0.002:
            self._faults = [] if self._faults else [rng.choice(_FAULTS)]

    def sample(self) -> tuple[str, bytes]:
        """Type and signals of the next message."""
        if self._rng.random() < 0.02:
            signals: dict[str, object] = {
                "Vehicle.OBD.DTCList": self._faults,
                "Vehicle.OBD.Status.DTCCount": len(self._faults),
            }
            return "vehicle.faults", json.dumps(signals, separators=(",", ":")).encode()
        signals = {
            "Vehicle.Speed": round(self._speed_kmh, 1),
            "Vehicle.TraveledDistance": round(self._odometer_km, 1),
            "Vehicle.CurrentLocation.Latitude": round(self._latitude, 6),
            "Vehicle.CurrentLocation.Longitude": round(self._longitude, 6),
            "Vehicle.CurrentLocation.Heading": round(self._heading, 1),
            "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current": round(self._soc, 1),
        }
        return "vehicle.drive", json.dumps(signals, separators=(",", ":")).encode()
