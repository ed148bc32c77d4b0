"""Tickets: a slot that is promised to one device. Any node checks it without asking another.

    version 1 | key id 1 | slot 6 | flags 1 | device 8 | MAC 14      31 bytes, base64url 42 chars
    ............................................................
                     authenticated (keyed BLAKE2s)

`slot` is fleet time, Unix time in milliseconds. `device` is a hash of tenant and device, so no
other device can use the ticket. A ticket holds no secret and no name. Keys are derived from a
secret and the day (or another rotation period), so they change on all nodes at once. The keys of
the period before and after are accepted too: a slot is at most a horizon ahead.
"""

import binascii
import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.admission.errors import TicketError

TICKET_CHARS: Final = 42
TICKET_PRECISION_S: Final = 0.001
"""Tickets tell their slot in whole milliseconds."""
SECRET_BYTES_MIN: Final = 32

_VERSION: Final = 1
_BYTES: Final = 31
_BODY_BYTES: Final = 17
_MAC_BYTES: Final = 14
_DEVICE_BYTES: Final = 8
_PRIORITY: Final = 1
_BODY: Final = struct.Struct(f">QB{_DEVICE_BYTES}s")
"""Version, key id and slot are one number, because one is packed faster than three."""
_WHOLE: Final = struct.Struct(f">QB{_DEVICE_BYTES}s{_MAC_BYTES}s")
_SLOT_BITS: Final = 48
_SLOT_MASK: Final = (1 << _SLOT_BITS) - 1
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


class Ticket(Struct, frozen=True, gc=False):
    """A slot. `slot_at` in seconds of fleet time."""

    slot_at: float
    priority: bool


def device_hash(tenant: str, device: str) -> bytes:
    """The hash that binds a ticket to its device."""
    name = f"{tenant}/{device}".encode()
    return hashlib.blake2s(name, digest_size=_DEVICE_BYTES, person=b"tg-devic").digest()


class TicketOffice:
    """Issues and checks tickets. The first secret signs, all secrets verify."""

    def __init__(self, secrets: Sequence[bytes], *, rotation_s: float = 86_400.0) -> None:
        """
        Args:
            secrets: one or more; the first signs. `rotate` replaces them.
            rotation_s: how long a derived key signs. It must be longer than the calendar's horizon.
        """
        self._rotation_s = rotation_s
        self._secrets: tuple[bytes, ...] = ()
        self._epoch_began = self._epoch_ends = 0.0
        self._signing: tuple[int, hashlib.blake2s] = (0, hashlib.blake2s())
        """Version and key id, where they are in the packed number, and the MAC to copy."""
        self._verifying: dict[int, list[hashlib.blake2s]] = {}
        """By version and key id."""
        self.rotate(secrets)

    def rotate(self, secrets: Sequence[bytes]) -> None:
        """Replace the secrets.

        Raises:
            ValueError: there is no secret, or one is too short.
        """
        if not secrets or any(len(secret) < SECRET_BYTES_MIN for secret in secrets):
            raise ValueError(f"a ticket secret has at least {SECRET_BYTES_MIN} bytes")
        self._secrets = tuple(secrets)
        self._epoch_began = self._epoch_ends = 0.0

    def issue(self, slot_at: float, holder: bytes, now: float, priority: bool = False) -> str:
        """A ticket for the slot at `slot_at`, for the device with the hash `holder`."""
        if not self._epoch_began <= now < self._epoch_ends:
            self._turn_to(now)
        head, key = self._signing
        body = _BODY.pack(head + round(slot_at * 1000.0), priority, holder)
        mac = key.copy()
        mac.update(body)
        text = binascii.b2a_base64(body + mac.digest())
        return text[:TICKET_CHARS].translate(_URL_SAFE).decode()

    def check(self, text: str, holder: bytes, now: float) -> Ticket:
        """Read a ticket, if it is of this device.

        Raises:
            TicketError: it is malformed, of another key, forged, or of another device.
        """
        if len(text) != TICKET_CHARS:
            raise TicketError("malformed")
        try:
            # As bytes: to replace two characters of a text takes three times as long.
            raw = binascii.a2b_base64(text.encode().translate(_STANDARD) + b"==")
        except ValueError:
            raise TicketError("malformed") from None
        if len(raw) != _BYTES:
            raise TicketError("malformed")
        if not self._epoch_began <= now < self._epoch_ends:
            self._turn_to(now)
        head, flags, promised, shown = _WHOLE.unpack(raw)
        for key in self._verifying.get(head >> _SLOT_BITS, ()):
            mac = key.copy()
            mac.update(raw[:_BODY_BYTES])
            if hmac.compare_digest(mac.digest(), shown):
                break
        else:
            raise TicketError(self._offence(head))
        # The MAC is right, so the holder of a ticket learns nothing from the time that this takes.
        if promised != holder:
            raise TicketError("holder")
        slot_at = (head & _SLOT_MASK) / 1000
        return Ticket(slot_at, flags & _PRIORITY != 0)

    def _offence(self, head: int) -> str:
        """Why no key has made the MAC of a ticket."""
        if head >> _SLOT_BITS in self._verifying:
            return "forged"
        return "key" if head >> _SLOT_BITS + 8 == _VERSION else "malformed"

    def _turn_to(self, now: float) -> None:
        """Derive the keys of this period, and those of both neighbours to verify with."""
        epoch = int(now // self._rotation_s)
        self._epoch_began = epoch * self._rotation_s
        self._epoch_ends = (epoch + 1) * self._rotation_s
        self._verifying = {}
        for secret in self._secrets:
            for neighbour in (epoch - 1, epoch, epoch + 1):
                key_id, key = _derive(secret, neighbour)
                self._verifying.setdefault(_VERSION << 8 | key_id, []).append(key)
        key_id, key = _derive(self._secrets[0], epoch)
        self._signing = (_VERSION << 8 | key_id) << _SLOT_BITS, key


def _derive(secret: bytes, epoch: int) -> tuple[int, hashlib.blake2s]:
    """The key of a period: its id, and the MAC of nothing under it, which is copied for each."""
    material = hashlib.blake2s(b"%d" % epoch, key=_short(secret), person=b"tg-epoch").digest()
    # The id is derived too: it helps the verifier and does not disclose the key.
    key_id = hashlib.blake2s(material, digest_size=1, person=b"tg-keyid").digest()[0]
    return key_id, hashlib.blake2s(key=material, digest_size=_MAC_BYTES)


def _short(secret: bytes) -> bytes:
    """BLAKE2s takes keys of at most 32 bytes."""
    limit = hashlib.blake2s.MAX_KEY_SIZE
    return secret if len(secret) <= limit else hashlib.blake2s(secret).digest()
