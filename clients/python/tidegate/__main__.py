"""`python -m tidegate DEVICE --url URL`: a device at a terminal."""

import argparse
import asyncio
import os
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tidegate.errors import DeviceError
from tidegate.terminal import TerminalOptions, serve_terminal
from tidegate.wire.grammar import is_token

CREDENTIAL_VARIABLE: Final = "TIDEGATE_CREDENTIAL"
_USAGE: Final = 2

_DESCRIPTION: Final = """\
Be a device: a JSON line on stdin is a message, acks and commands come out.

A line is {"type":"battery.low","data":{...}}, or {"result":{"id":"..","ok":true,"data":..}}
to answer a command. It ends when stdin has ended and everything is acknowledged, or on
SIGINT or SIGTERM: what is not acknowledged stays in the outbox file.
"""


class _UsageError(Exception):
    """What the command line or the environment names cannot be used."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tidegate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("device", help="device id, the `sub` of the credential")
    parser.add_argument(
        "--url",
        action="append",
        required=True,
        help="gateway; may be repeated, then one that answers is used",
    )
    parser.add_argument(
        "--credential-file",
        type=Path,
        help=f"file that holds the JWT; without it, the variable {CREDENTIAL_VARIABLE} holds it",
    )
    parser.add_argument("--outbox", type=Path, help="outbox file; DEVICE.outbox without")
    parser.add_argument("--ca", type=Path, help="PEM file of the authorities to trust for wss://")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; those of the process without.

    Returns:
        The exit code: 0, 1 if the device cannot go on, 2 for a wrong command line, or 128 and the
        number of the signal that ended it.
    """
    parsed = _parser().parse_args(arguments)
    try:
        return asyncio.run(serve_terminal(_options(parsed)))
    except _UsageError as exc:
        sys.stderr.write(f"tidegate: {exc}\n")
        return _USAGE
    except DeviceError as exc:
        sys.stderr.write(f"tidegate: {exc}\n")
        return 1


def _options(parsed: argparse.Namespace) -> TerminalOptions:
    if not is_token(parsed.device):
        raise _UsageError("DEVICE must match [A-Za-z0-9_-]{1,64}")
    return TerminalOptions(
        urls=parsed.url,
        credential=_credential(parsed.credential_file),
        outbox=parsed.outbox if parsed.outbox is not None else Path(f"{parsed.device}.outbox"),
        tls=_trusting(parsed.ca),
    )


def _credential(path: Path | None) -> str:
    # Not an option: a command line is readable by every user of the machine.
    if path is None:
        credential = os.environ.get(CREDENTIAL_VARIABLE, "")
        if not credential:
            raise _UsageError(f"no credential: give --credential-file or set {CREDENTIAL_VARIABLE}")
        return credential
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
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
