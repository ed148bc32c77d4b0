"""Tidegate's reference client: a durable outbox and a session that comes back by itself."""

from clients.backoff import BackoffSettings, ReconnectPolicy
from clients.credentials import CredentialProvider, static_credential
from clients.device import Command, Device, KnockRecord
from clients.errors import (
    CredentialRefused,
    DeviceError,
    OutboxError,
    OutboxFull,
    Rejected,
    Unreachable,
)
from clients.outbox import OutboxLimits
from gateway.session.frames import Reject

__all__ = [
    "BackoffSettings",
    "Command",
    "CredentialProvider",
    "CredentialRefused",
    "Device",
    "DeviceError",
    "KnockRecord",
    "OutboxError",
    "OutboxFull",
    "OutboxLimits",
    "ReconnectPolicy",
    "Reject",
    "Rejected",
    "Unreachable",
    "static_credential",
]
