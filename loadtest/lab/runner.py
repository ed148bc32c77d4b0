"""What `tidegate storm` does with its options: checks, storms, the verdict and the report."""

import argparse
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rich.console import Console

from loadtest.devices.credentials import Issuer
from loadtest.devices.limits import require_descriptors, require_ports
from loadtest.errors import ScenarioError, TargetError
from loadtest.lab.ground import Ground, Visited
from loadtest.lab.judgement import Outcome, judge
from loadtest.lab.report import write_report
from loadtest.lab.run import Run
from loadtest.lab.scenario import NEEDS_OUR_SERVERS, Scenario, load
from loadtest.lab.storm import storm
from loadtest.simulator import StormPlan, StormResult, simulate

_SPARE_DESCRIPTORS: Final = 500


def run_lab(options: argparse.Namespace, base: Path, console: Console) -> int:
    """Do what `options` say, with the servers and their files below `base`.

    Returns:
        0 if every objective was reached, else 1.

    Raises:
        LoadtestError: it could not be run.
    """
    scenario = _scenario(options)
    _check(options, scenario)
    console.print(
        f"[bold]{scenario.title}[/]: {scenario.devices:,} devices, R = {scenario.rate_per_s:g}/s, "
        f"{scenario.nodes} node{'s' if scenario.nodes > 1 else ''}, policy {scenario.policy}"
    )
    lab = Lab(options, base, console)
    baseline = None
    if scenario.forged_share:
        console.print("first without forgers, to compare with")
        honest = scenario.model_copy(update={"forged_share": 0.0})
        baseline = lab.perform(honest, scenario.policy, seed=options.seed)
    outcomes = [lab.perform(scenario, scenario.policy, seed=options.seed)]
    for number, policy in enumerate(options.compare, 1):
        console.print(f"the same storm with {policy}")
        outcomes.append(lab.perform(scenario, policy, seed=options.seed + number))
    simulated = [_simulated(scenario, outcome.policy) for outcome in outcomes]
    judgement = judge(outcomes[0], baseline)
    judgement.show(console, outcomes, simulated)
    report = Path(options.report or f"storm-{Path(options.scenario).stem}.html")
    write_report(report, judgement, outcomes, simulated)
    console.print(f"report: {report}, picture: {report.with_suffix('.png')}")
    return 0 if judgement.passed else 1


class Lab:
    """Performs storms, on servers that it starts unless `--url` names others."""

    def __init__(self, options: argparse.Namespace, base: Path, console: Console) -> None:
        self._options = options
        self._base = base
        self._console = console

    def perform(self, scenario: Scenario, policy: str, *, seed: int) -> Outcome:
        """One storm."""
        options = self._options
        if options.url:
            issuer = Issuer.of(Path(options.key_file))
            visited = Visited(options.ops_url, options.nats_url)
            return storm(Run(scenario, policy, issuer, options.url, visited, seed), self._console)
        with (
            tempfile.TemporaryDirectory(dir=self._base) as directory,
            Ground(scenario, Path(directory)) as ground,
        ):
            return storm(Run.on_our_ground(scenario, policy, ground, seed), self._console)


def _scenario(options: argparse.Namespace) -> Scenario:
    """The scenario, with what the options change in it."""
    changed = {
        "devices": options.devices, "rate_per_s": options.rate, "policy": options.policy,
        "message_rate": options.message_rate, "tls": options.tls or None,
    }  # fmt: skip
    given = {key: value for key, value in changed.items() if value is not None}
    return load(options.scenario).model_copy(update=given)


def _check(options: argparse.Namespace, scenario: Scenario) -> None:
    """Find what cannot work before anything is started."""
    if options.url and scenario.fault in NEEDS_OUR_SERVERS:
        raise ScenarioError(
            f"{options.scenario} breaks servers, and those of --url are not ours to break; "
            "leave --url out"
        )
    knocking = round(scenario.devices / (1 - scenario.forged_share))
    require_descriptors(knocking + _SPARE_DESCRIPTORS)
    require_ports(knocking, scenario.nodes)
    _check_reachable(options.url)
    for url in options.ops_url:
        if not url.startswith(("http://", "https://")):
            raise TargetError(f"--ops-url {url}: must be http://HOST:PORT")


def _check_reachable(urls: Sequence[str]) -> None:
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise TargetError(f"--url {url}: must be ws://HOST:PORT/v1/device or wss://...")
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        try:
            socket.create_connection((parts.hostname, port), timeout=5).close()
        except OSError as exc:
            raise TargetError(
                f"--url {url}: no gateway answers ({exc.strerror or exc}); start it: tidegate serve"
            ) from None


def _simulated(scenario: Scenario, policy: str) -> StormResult | None:
    """The same storm in virtual time, if the simulator knows such storms."""
    cold = scenario.gateway.get("admission.resume_cost") == 1.0
    if scenario.fault != "cut" or scenario.nodes > 1 or scenario.forged_share or not cold:
        return None
    return simulate(
        StormPlan(
            devices=scenario.devices, rate_per_s=scenario.rate_per_s, policy=policy,
            rtt_s=0.002, lateness_s=0.005,
        )
    )  # fmt: skip
