"""Tidegate's reference client: a durable outbox and a session that comes back by itself."""

from tidegate.answers import Refusal
from tidegate.backoff import BackoffSettings, ReconnectPolicy
from tidegate.clock import Clock
from tidegate.credentials import CredentialProvider, static_credential
from tidegate.device import Connected, Device
from tidegate.errors import (
    BadAddress,
    BadCredential,
    CallbackFailed,
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
from tidegate.status import KnockRecord
from tidegate.wire.frames import Reject

__all__ = [
    "BackoffSettings",
    "BadAddress",
    "BadCredential",
    "CallbackFailed",
    "Clock",
    "Command",
    "Connected",
    "CredentialProvider",
    "CredentialRefused",
    "Device",
    "DeviceError",
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
    "Unreachable",
    "static_credential",
]
