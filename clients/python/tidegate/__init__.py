"""Tidegate's reference client: a durable outbox and a session that reconnects by itself.

The names below are imported when they are first used (PEP 562), because the gateway imports
`tidegate.wire` and must not load the client with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tidegate.answers import Refusal
    from tidegate.backoff import BackoffSettings, ReconnectPolicy
    from tidegate.board import Connected
    from tidegate.clock import Clock
    from tidegate.credentials import CredentialProvider, static_credential
    from tidegate.device import Device
    from tidegate.environment import Environment
    from tidegate.errors import (
        BadAddress,
        BadCredential,
        CallbackFailed,
        CommandFailed,
        CredentialRefused,
        DeviceError,
        Misuse,
        NotOpen,
        OutboxError,
        OutboxFull,
        Rejected,
        Unreachable,
    )
    from tidegate.exchange import Command
    from tidegate.outbox import OutboxLimits
    from tidegate.states import State
    from tidegate.status import KnockRecord
    from tidegate.wire.frames import Reject

_MODULES: Final = {
    "BackoffSettings": "backoff",
    "BadAddress": "errors",
    "BadCredential": "errors",
    "CallbackFailed": "errors",
    "Clock": "clock",
    "Command": "exchange",
    "CommandFailed": "errors",
    "Connected": "board",
    "CredentialProvider": "credentials",
    "CredentialRefused": "errors",
    "Device": "device",
    "DeviceError": "errors",
    "Environment": "environment",
    "KnockRecord": "status",
    "Misuse": "errors",
    "NotOpen": "errors",
    "OutboxError": "errors",
    "OutboxFull": "errors",
    "OutboxLimits": "outbox",
    "ReconnectPolicy": "backoff",
    "Refusal": "answers",
    "Reject": "wire.frames",
    "Rejected": "errors",
    "State": "states",
    "Unreachable": "errors",
    "static_credential": "credentials",
}
"""For each public name the module that defines it."""

__all__ = [
    "BackoffSettings",
    "BadAddress",
    "BadCredential",
    "CallbackFailed",
    "Clock",
    "Command",
    "CommandFailed",
    "Connected",
    "CredentialProvider",
    "CredentialRefused",
    "Device",
    "DeviceError",
    "Environment",
    "KnockRecord",
    "Misuse",
    "NotOpen",
    "OutboxError",
    "OutboxFull",
    "OutboxLimits",
    "ReconnectPolicy",
    "Refusal",
    "Reject",
    "Rejected",
    "State",
    "Unreachable",
    "static_credential",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
