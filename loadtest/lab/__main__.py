"""The storm lab: `tidegate storm SCENARIO`, or `python -m loadtest.lab SCENARIO`.

Locust drives the vehicles, headless and in this process; the gateways are processes of their own.
A fleet is built up, is calm for a while, meets the scenario's fault, and is watched until everybody
is back. Then the objectives are judged, and a report is written.
"""

# gevent replaces the blocking parts of the standard library, and must come before they are used.
from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402  # as above

import argparse
import gc
import logging
import os
import random
import resource
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import gevent
import gevent.ssl
from locust import User, task
from locust.env import Environment
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from loadtest.devices.credentials import Issuer
from loadtest.devices.policies import make_policy
from loadtest.devices.vehicle import Refused, Vehicle, VehiclePlan
from loadtest.errors import LimitError, LoadtestError, ScenarioError, TargetError
from loadtest.lab import machine
from loadtest.lab import scenario_faults as faults
from loadtest.lab.ground import Ground, Visited
from loadtest.lab.judgement import Judgement, Outcome, judge
from loadtest.lab.observations import Observations
from loadtest.lab.options import parse
from loadtest.lab.report import write_report
from loadtest.lab.scenario import NEEDS_OUR_SERVERS, Scenario, load
from loadtest.simulator import StormPlan, simulate

_SAMPLE_S: Final = 0.5
_BUILD_TIMEOUT_S: Final = 300.0
_LIFETIME_S: Final = 3_600
_SPARE_DESCRIPTORS: Final = 500


class _Watcher:
    """What becomes of vehicles, into the observations of a run."""

    def __init__(self, observed: Observations) -> None:
        self._observed = observed

    def knocked(self) -> None:
        self._observed.knocks.append(self._observed.clock())

    def welcomed(self, knocking_s: float, waited_s: float, late_s: float | None) -> None:
        del knocking_s
        observed = self._observed
        observed.admissions.append(observed.clock())
        observed.waits.append(waited_s)
        if late_s is not None:
            observed.honoured += 1
            observed.lateness.append(late_s)

    def refused(self, refusal: Refused, knocking_s: float, *, dishonoured: bool) -> None:
        del knocking_s
        self._observed.refusals.append((self._observed.clock(), refusal.reason))
        self._observed.dishonoured += dishonoured

    def failed(self, why: str, knocking_s: float) -> None:
        del why, knocking_s
        self._observed.failures.append(self._observed.clock())

    def acked(self, latency_s: float) -> None:
        self._observed.acked(latency_s)

    def lost(self) -> None:
        self._observed.cuts.append(self._observed.clock())


class _Credentials:
    """Minted once for each vehicle, and again only when it asks because the last was refused."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self.together_until: float | None = None
        """Unix time at which all that are minted from now on expire."""

    def of(self, name: str) -> Callable[[], str]:
        def mint() -> str:
            now = time.time()
            until = self.together_until
            lifetime_s = _LIFETIME_S if until is None else int(until) - int(now)
            return self._issuer.token(name, lifetime_s=lifetime_s)

        return mint


@dataclass(slots=True)
class Run:
    """One fleet and one storm."""

    scenario: Scenario
    policy: str
    issuer: Issuer
    urls: Sequence[str]
    ground: Ground | Visited
    seed: int
    observed: Observations = field(init=False)
    vehicles: list[Vehicle] = field(default_factory=list)
    credentials: _Credentials = field(init=False)
    context: gevent.ssl.SSLContext | None = None
    name: str = field(default_factory=lambda: secrets.token_hex(3))
    """In the ids of its vehicles: no stream has seen them before."""

    def __post_init__(self) -> None:
        began = time.monotonic()
        self.observed = Observations(lambda: time.monotonic() - began)
        self.credentials = _Credentials(self.issuer)
        ca_file = self.ground.ca_file
        if ca_file is not None:
            self.context = gevent.ssl.create_default_context(cafile=str(ca_file))

    @property
    def inside(self) -> int:
        return sum(vehicle.inside for vehicle in self.vehicles)

    @property
    def caught_up(self) -> bool:
        """Whether no more waits in the outboxes than what was produced in the last moments."""
        pending = sum(vehicle.pending for vehicle in self.vehicles)
        return pending <= self.scenario.devices * max(0.1, self.scenario.message_rate)

    def make_vehicle(self) -> Vehicle:
        number = len(self.vehicles)
        name = f"veh-{self.name}-{number}"
        rng = random.Random(f"{self.seed}-{number}")
        # What a gateway tells a fleet of this size; heard from it in the welcome, too.
        policy = make_policy(self.policy, rng, first_retry_ms=2_000)
        plan = VehiclePlan(
            urls=self.urls,
            token=self.credentials.of(name),
            policy=policy,
            message_rate=self.scenario.message_rate,
            rng=rng,
            context=self.context,
        )
        vehicle = Vehicle(name, plan, _Watcher(self.observed))
        self.vehicles.append(vehicle)
        return vehicle

    def forgers(self) -> list[gevent.Greenlet]:
        """Greenlets that knock with forged credentials until they are killed."""
        share = self.scenario.forged_share
        count = round(self.scenario.devices * share / (1 - share))
        nobody = _Watcher(Observations(time.monotonic))
        made = []
        for number in range(count):
            name, rng = f"forger-{number}", random.Random(number)
            plan = VehiclePlan(
                urls=self.urls,
                token=lambda name=name: self.issuer.forged(name),  # type: ignore[misc]
                policy=make_policy("full-jitter", rng),
                begins_at_once=False,
                rng=rng,
                context=self.context,
            )
            made.append(gevent.spawn(Vehicle(name, plan, nobody).run))
        return made

    def sample_for_ever(self) -> None:
        while True:
            sample = self.ground.sample(self.observed.clock())
            if sample is not None:
                self.observed.samples.append(sample)
            load = machine.sample(self.observed.clock())
            if load is not None:
                self.observed.machine.append(load)
            gevent.sleep(_SAMPLE_S)


@contextmanager
def _phase(run: Run, name: str, console: Console) -> Iterator[None]:
    """Show how many are in, until it is left."""
    progress = Progress(
        TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip
    began = time.monotonic()
    with progress:
        bar = progress.add_task(name, total=run.scenario.devices, note="")

        def refresh() -> None:
            observed = run.observed
            note = (
                f"{len(observed.knocks):,} knocks, {len(observed.refusals):,} refused, "
                f"{time.monotonic() - began:.0f} s"
            )
            progress.update(bar, completed=run.inside, note=note)

        def go_on() -> None:
            while True:
                refresh()
                gevent.sleep(0.25)

        refreshing = gevent.spawn(go_on)
        try:
            yield
        finally:
            refreshing.kill()
            refresh()


@contextmanager
def _driving(run: Run) -> Iterator[None]:
    """Locust, with a user for each vehicle, spawned as fast as R lets them in."""

    class VehicleUser(User):
        """A vehicle of this run."""

        fixed: ClassVar[Run] = run

        @task
        def drive(self) -> None:
            self.fixed.make_vehicle().run()

    environment = Environment(user_classes=[VehicleUser], catch_exceptions=False)
    runner = environment.create_local_runner()
    runner.start(run.scenario.devices, spawn_rate=max(1.0, run.scenario.rate_per_s * 0.98))
    try:
        yield
    finally:
        runner.quit()


def _calm_collector() -> None:
    """What lives now lives to the end: passes over it would stall every vehicle at once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        gevent.sleep(0.1)
    return True


def storm(run: Run, console: Console) -> Outcome:
    """Build up, be calm, break, wait, and look at what is stored.

    Raises:
        TargetError: the fleet could not be built up, or the stream not be read.
    """
    scenario, observed = run.scenario, run.observed
    build_s = scenario.devices / scenario.rate_per_s
    if scenario.fault == "expiry":
        run.credentials.together_until = time.time() + build_s * 1.2 + scenario.calm_s + 5
    sampling = gevent.spawn(run.sample_for_ever)
    try:
        with _driving(run):
            with _phase(run, "building up", console):
                built = _wait(
                    lambda: run.inside >= scenario.devices, build_s * 2 + _BUILD_TIMEOUT_S
                )
            if not built:
                raise TargetError(f"only {run.inside:,} of {scenario.devices:,} came in at first")
            _calm_collector()
            calm_from = observed.clock()
            until, run.credentials.together_until = run.credentials.together_until, None
            with _phase(run, "calm", console):
                left_s = scenario.calm_s if until is None else int(until) - 0.5 - time.time()
                gevent.sleep(max(0.0, left_s))
            fault_at = observed.clock()
            honoured, dishonoured = observed.honoured, observed.dishonoured
            observed.waits.clear()
            observed.lateness.clear()
            with _phase(run, scenario.fault, console):
                forgers = run.forgers() if scenario.forged_share else []
                affected = faults.break_it(scenario, run.vehicles, run.ground)
                everybody = _wait(
                    lambda: (
                        run.inside >= scenario.devices
                        and sum(at >= fault_at for at in observed.admissions) >= affected
                        and run.caught_up
                    ),
                    scenario.limit_s,
                )
                back_at = observed.clock()
            with _phase(run, "afterwards", console):
                gevent.sleep(scenario.after_s)
            gevent.killall(forgers)
            acked = {vehicle.name: vehicle.acked for vehicle in run.vehicles}
    finally:
        sampling.kill()
    stored = run.ground.check(acked)
    return Outcome(
        scenario=scenario, policy=run.policy, observed=observed, calm=(calm_from, fault_at),
        fault_at=fault_at, back_at=back_at, affected=affected, everybody=everybody,
        honoured=observed.honoured - honoured, dishonoured=observed.dishonoured - dishonoured,
        acked=sum(acked.values()), stored=stored,
    )  # fmt: skip


def check_limits(devices: int, nodes: int) -> None:
    """
    Raises:
        LimitError: this machine cannot hold so many connections; with the command that mends it.
    """
    needed = devices + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise LimitError(
                f"{devices:,} devices need {needed:,} file descriptors and {hard:,} are allowed: "
                f"ulimit -n {needed} (as root: prlimit --pid $$ --nofile={needed})"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if path.exists():
        first, last = map(int, path.read_text().split())
        # Ports are counted for each address and port they lead to.
        if (last - first) * nodes < devices * 1.2:
            raise LimitError(
                f"{devices:,} devices need more local ports than {first}-{last}: "
                "sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
            )


def check_reachable(urls: Sequence[str]) -> None:
    """
    Raises:
        TargetError: nobody listens there.
    """
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise TargetError(f"--url {url}: must be ws://HOST:PORT/v1/device or wss://...")
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        try:
            socket.create_connection((parts.hostname, port), timeout=5).close()
        except OSError as exc:
            raise TargetError(
                f"--url {url}: nobody answers ({exc.strerror or exc}); start it: tidegate serve"
            ) from None


def perform(
    scenario: Scenario,
    policy: str,
    options: argparse.Namespace,
    base: Path,
    console: Console,
    seed: int,
) -> Outcome:
    """One run, on servers of our own unless `--url` names others."""
    if options.url:
        issuer = Issuer.of(Path(options.key_file))
        visited = Visited(options.ops_url, options.nats_url)
        return storm(Run(scenario, policy, issuer, options.url, visited, seed), console)
    with (
        tempfile.TemporaryDirectory(dir=base) as directory,
        Ground(scenario, Path(directory)) as ground,
    ):
        return storm(Run(scenario, policy, ground.issuer, ground.urls, ground, seed), console)


def _simulated(scenario: Scenario, policy: str) -> Any:
    """The same storm in virtual time, where the simulator knows such storms."""
    cold = scenario.gateway.get("admission.resume_cost") == 1.0
    if scenario.fault != "cut" or scenario.nodes > 1 or scenario.forged_share or not cold:
        return None
    return simulate(
        StormPlan(
            devices=scenario.devices, rate_per_s=scenario.rate_per_s, policy=policy,
            rtt_s=0.002, lateness_s=0.005,
        )
    )  # fmt: skip


def run_lab(options: argparse.Namespace, base: Path, console: Console) -> int:
    """Do what `options` say, with servers and what they write below `base`.

    Returns:
        0 if every objective was reached, else 1.

    Raises:
        LoadtestError: it could not be run.
    """
    scenario = load(options.scenario)
    changed = {
        "devices": options.devices, "rate_per_s": options.rate, "policy": options.policy,
        "message_rate": options.message_rate, "tls": options.tls or None,
    }  # fmt: skip
    scenario = scenario.model_copy(update={k: v for k, v in changed.items() if v is not None})
    if options.url and scenario.fault in NEEDS_OUR_SERVERS:
        raise ScenarioError(
            f"{options.scenario} breaks servers, and those of --url are not ours to break; "
            "leave --url out"
        )
    check_limits(round(scenario.devices / (1 - scenario.forged_share)), scenario.nodes)
    check_reachable(options.url)
    for url in options.ops_url:
        if not url.startswith(("http://", "https://")):
            raise TargetError(f"--ops-url {url}: must be http://HOST:PORT")
    console.print(
        f"[bold]{scenario.title}[/]: {scenario.devices:,} devices, R = {scenario.rate_per_s:g}/s, "
        f"{scenario.nodes} node{'s' if scenario.nodes > 1 else ''}, policy {scenario.policy}"
    )
    baseline = None
    if scenario.forged_share:
        console.print("first without forgers, to compare with")
        honest = scenario.model_copy(update={"forged_share": 0.0})
        baseline = perform(honest, scenario.policy, options, base, console, seed=options.seed)
    outcomes = [perform(scenario, scenario.policy, options, base, console, seed=options.seed)]
    for number, policy in enumerate(options.compare, 1):
        console.print(f"the same storm with {policy}")
        outcomes.append(
            perform(scenario, policy, options, base, console, seed=options.seed + number)
        )
    simulated = [_simulated(scenario, outcome.policy) for outcome in outcomes]
    judgement: Judgement = judge(outcomes[0], baseline)
    judgement.show(console, outcomes, simulated)
    report = Path(options.report or f"storm-{Path(options.scenario).stem}.html")
    write_report(report, judgement, outcomes, simulated)
    console.print(f"report: {report}, picture: {report.with_suffix('.png')}")
    return 0 if judgement.passed else 1


def _end_at_once(base: Path, console: Console) -> None:
    """On SIGINT and SIGTERM: the servers go, what they wrote goes, and so does this process.

    Nothing is drained: greenlets of thousands of vehicles and servers in temporary directories need
    no goodbye, and whoever interrupts a storm waits for its prompt.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for pid in machine.descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        console.show_cursor(show=True)
        shutil.rmtree(base, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def main() -> None:
    """Entry point."""
    logging.getLogger("locust").setLevel(logging.ERROR)  # it warns of R itself
    console = Console()
    with tempfile.TemporaryDirectory(prefix="tidegate-storm-") as directory:
        _end_at_once(Path(directory), console)
        try:
            status = run_lab(parse(sys.argv[1:]), Path(directory), console)
        except LoadtestError as exc:
            for line in str(exc).splitlines():
                print(f"tidegate: {line}", file=sys.stderr)
            status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # greenlets of thousands of vehicles need no goodbye


if __name__ == "__main__":
    main()
