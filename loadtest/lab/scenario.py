"""Storm scenarios: TOML files that say what happens to a fleet, with the objectives.

    tidegate storm blip                  # one that ships, from loadtest/lab/scenarios/
    tidegate storm ./our-depot.toml      # one of yours

An unknown key is an error that names it. Times end with `_s` (seconds), rates are a second.
"""

import difflib
import itertools
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.devices.policies import POLICIES
from loadtest.errors import ScenarioError

_SHIPPED: Final = Path(__file__).parent / "scenarios"

Fault = Literal[
    "cut", "crash", "node-loss", "stream-outage", "rolling-restart", "expiry", "slow-stream"
]
NEEDS_OUR_SERVERS: Final = ("crash", "node-loss", "stream-outage", "rolling-restart", "slow-stream")
"""Faults that need servers which the lab started, and not those of `--url`."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Objectives(_Model):
    """What must hold. An objective that is left out is not judged."""

    recovery_over_ideal: Annotated[float, Field(gt=0)] | None = None
    """The time until every device is back, over N/R."""
    knocks_a_device: Annotated[float, Field(ge=1)] | None = None
    dishonoured: Annotated[int, Field(ge=0)] | None = None
    """Tickets shown in their slot and refused."""
    disconnects: Annotated[int, Field(ge=0)] | None = None
    """Sessions that ended, beyond those that the scenario ends."""
    refused: Annotated[int, Field(ge=0)] | None = None
    lost: Annotated[int, Field(ge=0)] | None = None
    """Acknowledged messages that are not stored."""
    duplicated: Annotated[int, Field(ge=0)] | None = None
    ack_p99_over_calm: Annotated[float, Field(gt=0)] | None = None
    """The ack p99 of messages during the storm, over that of the calm before it."""
    gateway_memory_mib: Annotated[float, Field(gt=0)] | None = None
    over_without_forgers: Annotated[float, Field(gt=0)] | None = None
    """Recovery of the honest devices, over that of the same storm without forgers."""


class Scenario(_Model):
    """One storm."""

    title: str
    fault: Fault
    devices: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    rate_per_s: Annotated[float, Field(gt=0)] = 300.0
    """R of the gateways together, and how fast the fleet is built up."""
    nodes: Annotated[int, Field(ge=1, le=8)] = 1
    tls: bool = False
    """Whether devices connect over TLS."""
    policy: str = "ticket"
    message_rate: Annotated[float, Field(ge=0)] = 0.2
    """Messages a second, of each device."""
    forged_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of devices that knock during the storm with a forged credential."""
    calm_s: Annotated[float, Field(ge=1)] = 5.0
    """The time before the fault, with every device connected."""
    fault_s: Annotated[float, Field(ge=0)] = 10.0
    """How long the fault lasts, if it is one that lasts."""
    after_s: Annotated[float, Field(ge=0)] = 3.0
    """How long the fleet is observed once every device is back."""
    limit_s: Annotated[float, Field(gt=0)] = 300.0
    """The run is given up so long after the fault, if not every device is back."""
    gateway: dict[str, str | int | float | bool] = {}
    """Settings of the gateways, as `section.key`."""
    objectives: Objectives = Objectives()


def shipped() -> list[str]:
    """Names of the scenarios that ship."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def _path_of(name: str) -> Path:
    path = _SHIPPED / f"{name}.toml"
    return path if path.exists() else Path(name)


def describe(name: str) -> str:
    """The comment at the top of a scenario's file.

    Raises:
        OSError: there is no such file.
    """
    lines = _path_of(name).read_text().splitlines()
    said = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return "\n".join(line.removeprefix("#").strip() for line in said)


def load(name: str) -> Scenario:
    """A shipped scenario by its name, or one from a file.

    Raises:
        ScenarioError: there is none, or a line of it cannot be used.
    """
    path = _path_of(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, shipped(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ScenarioError(f"no scenario {name}: {hint}there are {', '.join(shipped())}")
    try:
        scenario = Scenario.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ScenarioError(f"{path}: {exc}") from None
    except ValidationError as exc:
        raise ScenarioError(
            "\n".join(f"{path}: {_explain(error)}" for error in exc.errors())
        ) from None
    if scenario.policy not in POLICIES:
        raise ScenarioError(f"{path}: policy: there are {', '.join(POLICIES)}")
    if scenario.fault == "node-loss" and scenario.nodes == 1:
        raise ScenarioError(f"{path}: nodes: node-loss needs 2 or more")
    return scenario


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg'].lower()}"
    model: type[BaseModel] = Objectives if error["loc"][0] == "objectives" else Scenario
    close = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1)
    hint = (
        f"; did you mean {close[0]}?" if close else f"; there are {', '.join(model.model_fields)}"
    )
    return f"{key}: unknown key{hint}"
