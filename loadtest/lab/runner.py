"""What `tidegate storm` does with a scenario: storms, the verdict and the report."""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from loadtest.devices.credentials import Issuer
from loadtest.lab.ground import Ground, Visited
from loadtest.lab.judgement import Outcome, judge
from loadtest.lab.report import write_report
from loadtest.lab.run import Run
from loadtest.lab.scenario import Scenario
from loadtest.lab.storm import storm
from loadtest.simulator import StormPlan, StormResult, simulate


def run_lab(options: argparse.Namespace, scenario: Scenario, base: Path, console: Console) -> int:
    """Perform a scenario as `options` say, with the servers and their files below `base`.

    Returns:
        0 if every objective was reached, else 1.

    Raises:
        LoadtestError: it could not be run.
    """
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
