"""Tidegate's reference client: a durable outbox and a session that comes back by itself."""

from clients.answers import Refusal
from clients.backoff import BackoffSettings, ReconnectPolicy
from clients.clock import Clock
from clients.credentials import CredentialProvider, static_credential
from clients.device import Connected, Device
from clients.errors import (
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
from clients.exchange import Command
from clients.outbox import OutboxLimits
from clients.status import KnockRecord
from gateway.session.frames import Reject

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
