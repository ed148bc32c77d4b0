"""Two source trees in turns: what a message, a refusal and an admission cost the gateway.

    make bench-turns                                     # today's tree against the commit before
    make bench-turns ARGS="--against v1.2 --turns 11"
    make bench-turns ARGS="--against . --b-settings schemas.file=config/events.toml"
    make bench-turns ARGS="--traces"                     # what traces cost a message

Side A is the other tree, side B is this one, and the control is side A once more. The three take
turns in one run, each on gateways that are started for the turn. A figure of B is judged against
the figures of A and the control together: it may be higher by 3 %, or by the spread of A and the
control if that is larger. CPU times are those of the processes, so other programs on the machine
disturb them only through the caches. The load generator is always the one of this tree.
"""

import argparse
import asyncio
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final

import uvloop

from loadtest.benches import figures, traces
from loadtest.benches.knock_costs import come_in, knock, requests_of
from loadtest.benches.message_costs import WARM_SHARE, cost_of_messages
from loadtest.benches.rig import COLD, REFUSING, Bench
from loadtest.devices.limits import take_all_descriptors
from loadtest.errors import LoadtestError, TargetError
from loadtest.servers import proc
from loadtest.servers.gateway import GatewayServer

_HERE: Final = Path(__file__).parents[2]
_THIS_TREE: Final = "."


@dataclass(frozen=True, slots=True)
class Side:
    """One side: a source tree, and settings of its gateways (`section__key`)."""

    name: str
    title: str
    tree: Path
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """How much a turn measures: messages, and knocks of each kind."""

    messages: int
    knocks: int


async def take_turn(bench: Bench, side: Side, load: Load) -> dict[str, float]:
    """One turn of a side, on fresh gateways.

    Returns:
        Microseconds of CPU, by the name of the figure.

    Raises:
        TargetError: a gateway did not start, or did not answer as it should.
    """
    with bench.gateway(
        None, side.tree, **{"stream__durability": "stream", **COLD, **side.settings}
    ) as gateway:
        found = await cost_of_messages(bench, gateway, load.messages)
        found[figures.ADMISSION] = _cost_of_knocks(bench, gateway, load.knocks, admitted=True)
    with bench.gateway(None, side.tree, **{**REFUSING, **side.settings}) as gateway:
        found[figures.REFUSAL] = _cost_of_knocks(bench, gateway, load.knocks, admitted=False)
    return found


def _cost_of_knocks(bench: Bench, gateway: GatewayServer, count: int, *, admitted: bool) -> float:
    """CPU of the gateway for a knock of a device whose credential was verified before."""
    act = come_in if admitted else knock
    requests = requests_of(bench, max(1, int(count * WARM_SHARE)), "knocker")
    act([gateway.port], requests)
    pid = gateway.pids[0]
    rounds = max(1, count // len(requests))
    before = proc.cpu_s(pid)
    for _ in range(rounds):
        act([gateway.port], requests)
    return (proc.cpu_s(pid) - before) / (rounds * len(requests)) * 1e6


async def measure(
    bench: Bench, sides: Sequence[Side], turns: int, load: Load
) -> dict[str, figures.Series]:
    """All sides in turns; the order rotates, so that no side always comes first.

    Returns:
        The series of each side, by its name.
    """
    series = {side.name: figures.Series() for side in sides}
    for turn in range(turns):
        first = turn % len(sides)
        for side in (*sides[first:], *sides[:first]):
            series[side.name].add(await take_turn(bench, side, load))
        bench.report.console.print(f"  turn {turn + 1} of {turns}")
    return series


def export(commit: str, directory: Path) -> Path:
    """The source tree of a commit, below `directory`.

    Raises:
        TargetError: git does not know the commit.
    """
    done = subprocess.run(
        ["git", "archive", commit, "gateway", "clients"],  # noqa: S607  # of the PATH
        cwd=_HERE, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise TargetError(f"--against {commit}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def _subject(commit: str) -> str:
    """The commit as git names it in one line."""
    done = subprocess.run(
        ["git", "log", "-1", "--format=%h %s", commit],  # noqa: S607  # of the PATH
        cwd=_HERE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or commit


def sides_of(options: argparse.Namespace, directory: Path) -> list[Side]:
    """Both sides and the control.

    Raises:
        TargetError: the other tree cannot be exported.
    """
    tree, title = _HERE, "this tree"
    if options.against != _THIS_TREE:
        tree = export(options.against, directory / "against")
        title = _subject(options.against)
    ours = {**options.settings, **options.b_settings}
    theirs = {**options.settings, **options.a_settings}
    return [
        Side("A", _titled(title, options.a_settings), tree, theirs),
        Side("B", _titled("this tree", options.b_settings), _HERE, ours),
        Side("control", "A once more", tree, theirs),
    ]


def _titled(title: str, settings: Mapping[str, str]) -> str:
    said = ", ".join(f"{name.replace('__', '.')} = {value}" for name, value in settings.items())
    return f"{title} with {said}" if said else title


class SettingsAction(argparse.Action):
    """Collects KEY=VALUE; a key is `section.key`, as in config/gateway.toml."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(values, str)
        key, found, value = values.partition("=")
        if not found or "." not in key:
            parser.error(f"{option_string} {values}: must be section.key=value")
        given = {**getattr(namespace, self.dest), key.replace(".", "__"): value}
        setattr(namespace, self.dest, given)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options.

    Raises:
        SystemExit: they cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="bench-turns", description="CPU of two source trees, in turns in one run."
    )
    add = parser.add_argument
    add("--against", default="HEAD^", metavar="COMMIT",
        help="the other tree; HEAD^ by default, '.' for this one")  # fmt: skip
    add("--traces", action="store_true", help="what traces cost a message of this tree")
    add("--turns", type=int, default=7, help="of each side (7)")
    add("--messages", type=int, default=150_000, help="a turn (150,000)")
    add("--knocks", type=int, default=3_000, help="refusals and admissions a turn (3,000)")
    for name, what in (
        ("--settings", "a setting of both sides"),
        ("--a-settings", "a setting of the other tree"),
        ("--b-settings", "a setting of this tree"),
    ):
        add(name, action=SettingsAction, default={}, metavar="KEY=VALUE",
            help=f"{what}, as section.key=value; may be repeated")  # fmt: skip
    options = parser.parse_args(arguments)
    for name in ("turns", "messages", "knocks"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


async def run(options: argparse.Namespace) -> int:
    """Measure and judge.

    Returns:
        1 if a figure of this tree is too high, else 0.

    Raises:
        LoadtestError: it could not be run.
    """
    take_all_descriptors()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-turns-")))
        bench = Bench.below(directory)
        if options.traces:
            await traces.measure(bench, options.turns, options.messages, options.settings)
            return bench.report.status()
        sides = await asyncio.to_thread(sides_of, options, directory)
        for side in sides:
            bench.report.console.print(f"  {side.name}: {side.title}", highlight=False)
        load = Load(options.messages, options.knocks)
        series = await measure(bench, sides, options.turns, load)
    figures.judge(bench.report, series, options.turns)
    return bench.report.status()


def main() -> None:
    """Entry point."""
    try:
        sys.exit(uvloop.run(run(parse(sys.argv[1:]))))
    except LoadtestError as exc:
        sys.exit(f"bench-turns: {exc}")


if __name__ == "__main__":
    main()
