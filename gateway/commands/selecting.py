"""Options of every command that selects by tenant, device and type, and the check of them."""

from typing import Annotated

import typer

from gateway.commands.terminal import fail
from tidegate.wire.grammar import is_message_type, is_token

Tenant = Annotated[str | None, typer.Option(help="Only this tenant.")]
Device = Annotated[str | None, typer.Option(help="Only this device.")]
Type = Annotated[str | None, typer.Option("--type", help="Only this message type.")]


def check_names(*, message_type: str | None = None, **tokens: str | None) -> None:
    """End the command if a name cannot be one.

    Args:
        message_type: the value of `--type`.
        tokens: the values of other options, by their names.

    Raises:
        typer.Exit: with status 1.
    """
    for name, value in tokens.items():
        if value is not None and not is_token(value):
            fail(f"--{name} must match [A-Za-z0-9_-]{{1,64}}")
    if message_type is not None and not is_message_type(message_type):
        fail("--type is one to eight tokens [A-Za-z0-9_-]{1,64} joined by dots")
