"""`python -m tidegate DEVICE --url URL`: a device at a terminal."""

import argparse
import asyncio
import json
import os
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tidegate.errors import DeviceError, Misuse
from tidegate.terminal import ECHO, TerminalOptions, serve_terminal
from tidegate.wire.grammar import is_message_type, is_token

CREDENTIAL_VARIABLE: Final = "TIDEGATE_CREDENTIAL"
_USAGE: Final = 2

_DESCRIPTION: Final = """\
Act as a device. Each line of stdin is a message in JSON; each line of stdout is an
acknowledgement, a rejected message, a command or a state.

A line is {"type":"battery.low","data":{...}}, or {"result":{"id":"..","ok":true,"data":..}}
to answer a command. The command ends when stdin has ended and every message is acknowledged,
or on SIGINT or SIGTERM. With --answer it ends on a signal only. Messages that are not
acknowledged, the state and the queued commands stay in the outbox file.
"""


class _UsageError(Exception):
    """A value from the command line or the environment cannot be used."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tidegate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # With it, `--credential TOKEN` would mean `--credential-file TOKEN`.
        allow_abbrev=False,
    )
    parser.add_argument("device", help="device id, the `sub` of the credential")
    parser.add_argument(
        "--url",
        action="append",
        required=True,
        help="address of a gateway; may be repeated, and the first that answers is used",
    )
    # Known only so that it can be refused: argparse prints the values of unknown options.
    parser.add_argument("--credential", nargs="?", const="", help=argparse.SUPPRESS)
    parser.add_argument(
        "--credential-file",
        type=Path,
        help=f"file that holds the JWT; without it, the variable {CREDENTIAL_VARIABLE} holds it",
    )
    parser.add_argument("--outbox", type=Path, help="outbox file; the default is DEVICE.outbox")
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="TYPE[=JSON]",
        help="answer commands of this type with JSON, or with their own data; may be repeated",
    )
    parser.add_argument("--ca", type=Path, help="PEM file of the authorities to trust (wss://)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; the default is the process's own.

    Returns:
        The exit code: 0, 1 if the device cannot go on, 2 if an option or the credential cannot be
        used, or 128 plus the number of the signal that ended it.
    """
    parsed = _parser().parse_args(arguments)
    try:
        return asyncio.run(serve_terminal(_options(parsed)))
    except (_UsageError, Misuse) as exc:
        sys.stderr.write(f"tidegate: {exc}\n")
        return _USAGE
    except DeviceError as exc:
        sys.stderr.write(f"tidegate: {exc}\n")
        return 1


def _options(parsed: argparse.Namespace) -> TerminalOptions:
    if not is_token(parsed.device):
        raise _UsageError("DEVICE must match [A-Za-z0-9_-]{1,64}")
    if parsed.credential is not None:
        raise _UsageError(
            "every user of this machine can read a credential on a command line:"
            f" use --credential-file or set {CREDENTIAL_VARIABLE}"
        )
    return TerminalOptions(
        urls=parsed.url,
        credential=_credential(parsed.credential_file),
        outbox=parsed.outbox if parsed.outbox is not None else Path(f"{parsed.device}.outbox"),
        tls=_trusting(parsed.ca),
        answers=dict(map(_answer, parsed.answer)),
    )


def _answer(text: str) -> tuple[str, Any]:
    """The type of a command and the data of its answer."""
    command_type, equals, data = text.partition("=")
    if not is_message_type(command_type):
        raise _UsageError(f"--answer {text}: a type is one to eight tokens joined by dots")
    if not equals:
        return command_type, ECHO
    try:
        return command_type, json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _UsageError(f"--answer {text}: {exc}") from None


def _credential(path: Path | None) -> str:
    if path is None:
        credential = os.environ.get(CREDENTIAL_VARIABLE, "")
        if not credential:
            raise _UsageError(f"no credential: give --credential-file or set {CREDENTIAL_VARIABLE}")
        return credential
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not ASCII text"
        raise _UsageError(f"--credential-file {path}: {reason}") from exc


def _trusting(path: Path | None) -> ssl.SSLContext | None:
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as exc:  # an ssl.SSLError is one
        raise _UsageError(f"--ca {path}: {exc.strerror or exc}") from exc


if __name__ == "__main__":
    sys.exit(main())
