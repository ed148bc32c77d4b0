"""The options of `tidegate storm`, and the help of each scenario."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Final, NoReturn

from loadtest.devices.policies import POLICIES
from loadtest.errors import ScenarioError
from loadtest.lab.scenario import Scenario, describe, load, shipped

_PLAIN: Final = argparse.RawDescriptionHelpFormatter


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options.

    Raises:
        SystemExit: they cannot be used, or help was asked for and has been printed.
        ScenarioError: help was asked for a scenario that does not exist.
    """
    parser = _parser()
    # Help comes first: whoever asks for it has no use for other errors.
    if any(each in ("-h", "--help") for each in arguments):
        _help(parser, [each for each in arguments if not each.startswith("-")])
    options = parser.parse_args(arguments)
    if options.scenario is None:
        parser.error(f"name a scenario: {', '.join(shipped())}, or a TOML file of yours")
    for name in ("devices", "rate"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name} must be more than 0")
    if options.tls and options.url:
        parser.error("--tls is for gateways that the storm starts; with --url, give wss://")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate storm", formatter_class=_PLAIN, add_help=False,
        usage="tidegate storm SCENARIO [options]",
        description="A reconnection storm on real sockets, with a verdict and a report.",
    )  # fmt: skip
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO",
                        help="a scenario that ships, or a TOML file of yours")  # fmt: skip
    parser.add_argument("-h", "--help", action="store_true",
                        help="show this; with SCENARIO, what it does and wants")  # fmt: skip
    parser.add_argument("--devices", type=int, help="instead of the scenario's")
    parser.add_argument("--rate", type=float, help="R, instead of the scenario's")
    parser.add_argument("--policy", choices=POLICIES, metavar="POLICY",
                        help=f"instead of the scenario's: {', '.join(POLICIES)}")  # fmt: skip
    parser.add_argument("--message-rate", type=float, help="instead of the scenario's")
    parser.add_argument("--tls", action="store_true",
                        help="the gateways use TLS (with --url, give wss:// instead)")  # fmt: skip
    parser.add_argument("--compare", choices=POLICIES, metavar="POLICY",
                        action="append", default=[],
                        help="repeat the storm with this policy; may be repeated")  # fmt: skip
    parser.add_argument("--url", action="append", default=[],
                        help="a gateway of yours; may be repeated")  # fmt: skip
    parser.add_argument("--ops-url", action="append", default=[],
                        help="its metrics, http://HOST:PORT; may be repeated")  # fmt: skip
    parser.add_argument("--nats-url", help="its NATS, for the checker to read the stream")
    parser.add_argument("--key-file", default=".tidegate/development-jwks.json",
                        help="JWKS with the HMAC key that signs credentials for --url")  # fmt: skip
    parser.add_argument("--report", help="HTML file to write (storm-SCENARIO.html)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (1)")
    return parser


def _help(parser: argparse.ArgumentParser, words: Sequence[str]) -> NoReturn:
    """Print the help of the scenario that is among `words`, or the general help."""
    scenario = None
    for word in words:
        try:
            scenario = load(word)
        except ScenarioError:
            if word == words[0] and _looks_meant(word):
                raise
            continue
        parser.usage = f"tidegate storm {word} [options]"
        parser.description = f"{describe(word)}\n\n{_page(scenario)}"
        break
    if scenario is None:
        lines = "\n".join(f"  {name:<16} {load(name).title}" for name in shipped())
        parser.epilog = f"scenarios (tidegate storm SCENARIO --help says more):\n{lines}"
    parser.print_help()
    raise SystemExit(0)


def _looks_meant(word: str) -> bool:
    """Whether a word that is no scenario was meant as one, rather than as an option's value."""
    return word.endswith(".toml") or bool(difflib.get_close_matches(word, shipped(), n=1))


def _page(scenario: Scenario) -> str:
    lines = [
        f"  devices       {scenario.devices:,}",
        f"  R             {scenario.rate_per_s:g} admissions a second",
        f"  nodes         {scenario.nodes}",
        f"  fault         {scenario.fault}, after {scenario.calm_s:g} s of calm",
        f"  policy        {scenario.policy}",
        f"  messages      {scenario.message_rate:g} a second from each device",
    ]
    if scenario.forged_share:
        lines.append(f"  forged        {scenario.forged_share:.0%} of all devices that knock")
    lines += [f"  {key} = {value}" for key, value in scenario.gateway.items()]
    promised = scenario.objectives.model_dump(exclude_none=True)
    lines += [
        "",
        "it passes if, at most:",
        *(f"  {key} {value:g}" for key, value in promised.items()),
    ]
    return "\n".join(lines)
