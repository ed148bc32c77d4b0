"""The course of a storm: build up, be calm, break, wait, and read what is stored. On gevent."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

import gevent
from locust import User, task
from locust.env import Environment
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from loadtest.errors import TargetError
from loadtest.lab import scenario_faults
from loadtest.lab.judgement import Outcome
from loadtest.lab.run import Run

_BUILD_TIMEOUT_S: Final = 300.0
_REFRESH_S: Final = 0.25
_EXPIRY_SLACK: Final = 1.2
"""Credentials that expire together must outlast the building up, which may be slower than R."""


@contextmanager
def _phase(run: Run, name: str, console: Console) -> Iterator[None]:
    """Show how many vehicles are in, until the context is left."""
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

        def refresh_for_ever() -> None:
            while True:
                refresh()
                gevent.sleep(_REFRESH_S)

        refreshing = gevent.spawn(refresh_for_ever)
        try:
            yield
        finally:
            refreshing.kill()
            refresh()


@contextmanager
def _driving(run: Run) -> Iterator[None]:
    """Locust with a user for each vehicle, spawned as fast as R admits them."""

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


@contextmanager
def _sampling(run: Run) -> Iterator[None]:
    sampling = gevent.spawn(run.sample_for_ever)
    try:
        yield
    finally:
        sampling.kill()


def _freeze_garbage() -> None:
    """Let the collector skip the vehicles, which live to the end: a pass would stall them all."""
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


@dataclass(frozen=True, slots=True)
class _Fault:
    """What the fault of a scenario did. Times in seconds of the observations' clock."""

    at: float
    recovers_from: float
    """When there was a gateway to recover to."""
    back_at: float
    affected: int
    all_back: bool
    dishonoured_before: int


def storm(run: Run, console: Console) -> Outcome:
    """Build up, be calm, break, wait, and read what is stored.

    Raises:
        TargetError: the fleet could not be built up, or the stream could not be read.
    """
    scenario, observed = run.scenario, run.observed
    build_s = scenario.devices / scenario.rate_per_s
    if scenario.fault == "expiry":
        until = time.time() + build_s * _EXPIRY_SLACK + scenario.calm_s + 5
        run.credentials.together_until = until
    with _sampling(run), _driving(run):
        _build_up(run, build_s, console)
        calm_from = observed.clock()
        _be_calm(run, console)
        fault = _break(run, console)
        acked = {vehicle.name: vehicle.acked for vehicle in run.vehicles}
    stored = run.ground.check(acked)
    return Outcome(
        scenario=scenario, policy=run.policy, observed=observed, calm=(calm_from, fault.at),
        fault_at=fault.at, recovers_from=fault.recovers_from, back_at=fault.back_at,
        affected=fault.affected,
        all_back=fault.all_back,
        dishonoured=observed.dishonoured - fault.dishonoured_before,
        acked=sum(acked.values()), stored=stored,
    )  # fmt: skip


def _build_up(run: Run, build_s: float, console: Console) -> None:
    devices, observed = run.scenario.devices, run.observed

    def strangers() -> bool:
        return not observed.admissions and observed.unbelieved >= devices

    with _phase(run, "building up", console):
        built = _wait(lambda: run.inside >= devices or strangers(), build_s * 2 + _BUILD_TIMEOUT_S)
    if strangers():
        raise TargetError("the gateway believes no credential: name its key with --key-file")
    if not built:
        raise TargetError(f"only {run.inside:,} of {devices:,} came in at first")
    _freeze_garbage()


def _be_calm(run: Run, console: Console) -> None:
    """Wait until the fault is due: after the calm, or when the credentials expire together."""
    until, run.credentials.together_until = run.credentials.together_until, None
    with _phase(run, "calm", console):
        left_s = run.scenario.calm_s if until is None else int(until) - 0.5 - time.time()
        gevent.sleep(max(0.0, left_s))


def _break(run: Run, console: Console) -> _Fault:
    """Do what the scenario says, and wait until every device is back or the time is up."""
    scenario, observed = run.scenario, run.observed
    fault_at = observed.clock()
    dishonoured = observed.dishonoured
    observed.waits.clear()
    observed.lateness.clear()
    with _phase(run, scenario.fault, console):
        forgers = run.forgers() if scenario.forged_share else []
        affected = scenario_faults.break_it(scenario, run.vehicles, run.ground)
        # After a crash there is nothing to recover to until a gateway admits again.
        recovers_from = observed.clock() if scenario.fault == "crash" else fault_at

        def back() -> bool:
            return (
                run.inside >= scenario.devices
                and sum(at >= fault_at for at in observed.admissions) >= affected
                and run.caught_up
            )

        all_back = _wait(back, scenario.limit_s)
        back_at = observed.clock()
    with _phase(run, "afterwards", console):
        gevent.sleep(scenario.after_s)
    gevent.killall(forgers)
    return _Fault(fault_at, recovers_from, back_at, affected, all_back, dishonoured)
