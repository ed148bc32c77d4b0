"""Tidegate's reference client: a durable outbox and a session that comes back by itself."""

from clients.backoff import BackoffSettings, ReconnectPolicy
from clients.credentials import CredentialProvider, static_credential
from clients.device import Command, Device, KnockRecord
from clients.errors import CredentialRefused, DeviceError, OutboxError, Rejected, Unreachable
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
    "ReconnectPolicy",
    "Reject",
    "Rejected",
    "Unreachable",
    "static_credential",
]
