"""What the commands share: options, settings with readable errors, and how a command fails."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gateway.commands.values import seconds_in
from gateway.settings import Settings, SettingsError, load_settings, secrets_of
from gateway.telemetry.hiding import hide

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings, a TOML file.", dir_okay=False)
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Directory of the embedded NATS and of keys.")
]
NatsUrl = Annotated[list[str] | None, typer.Option(help="Your own NATS server; may be repeated.")]


def settings_of(config: Path | None, overrides: dict[str, Any]) -> Settings:
    """The settings, or the end of the command with what is wrong with them.

    Raises:
        typer.Exit: with status 1.
    """
    try:
        return load_settings(config, overrides=overrides)
    except SettingsError as exc:
        fail(str(exc))


def nats_settings_of(
    config: Path | None, nats_url: list[str] | None, data_dir: Path | None, **overrides: Any
) -> Settings:
    """The settings of a command that signs in to NATS: `--config`, `--nats-url`, `--data-dir`.

    Args:
        config: TOML file.
        nats_url: servers, instead of those of the file.
        data_dir: of a gateway with the embedded server.
        overrides: other settings; a name's `__` stands for a dot.

    Raises:
        typer.Exit: with status 1.
    """
    return settings_of(config, nats_overrides(nats_url, data_dir, **overrides))


def nats_overrides(
    nats_url: list[str] | None, data_dir: Path | None, **overrides: Any
) -> dict[str, Any]:
    """What these options set, by dotted key. The arguments are those of `nats_settings_of`."""
    others = {name.replace("__", "."): value for name, value in overrides.items()}
    urls = tuple(nats_url) if nats_url else None
    return {"nats.urls": urls, "nats.data_dir": data_dir, **others}


def fail(message: str) -> NoReturn:
    """End the command with a line on standard error for each of the message.

    Raises:
        typer.Exit: with status 1.
    """
    for line in hide(message).splitlines():
        typer.echo(f"tidegate: {line}", err=True)
    raise typer.Exit(1)


def moment_of(text: str | None, option: str = "--since") -> datetime | None:
    """The time that an option names; None for the beginning of the stream.

    Raises:
        typer.Exit: it is none of these.
    """
    if text is None:
        return None
    if text == "all":
        return None
    seconds = seconds_in(text)
    if seconds is not None:
        return datetime.now(UTC) - timedelta(seconds=seconds)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text!r}: neither 10m, 2h, 1d, `all` nor an RFC 3339 time")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def seconds_of(text: str, option: str) -> int:
    """A length of time that an option names.

    Raises:
        typer.Exit: it names none.
    """
    seconds = seconds_in(text)
    if not seconds:
        fail(f"{option} {text!r}: must be like 90s, 10m, 2h or 1d")
    return seconds


def say(message: str) -> None:
    """Print a line for the person who waits, on standard error."""
    typer.echo(f"tidegate: {message}", err=True)


def configure_command_logs(settings: Settings, level: str) -> None:
    """Log what goes wrong within a command, from `level` on, to standard error."""
    from gateway.telemetry.logs import configure_logs  # noqa: PLC0415  # most commands log nothing

    configure_logs(level, settings.log.format, secrets=secrets_of(settings))
    # asyncio warns of what nats-py does whenever a server ends a TLS connection.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
