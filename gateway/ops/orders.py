"""What an operator posts: the bodies of the orders. Pure.

Every name is checked against the same grammar as a device's, so that nothing is kept that no device
could ever present.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from gateway.ops.errors import BadOrder

_Order = TypeVar("_Order")

JTI_CHARS_MAX: Final = 256
UNTIL_MAX: Final = 253_402_300_799.0
"""Unix time in seconds of the last second of the year 9999: what any calendar can still show."""


STEER_S_MAX: Final = 7 * 86_400
"""A change that must hold for longer than a week belongs in the settings."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is revoked: one credential by its `jti`, or one device of a tenant."""

    jti: str = ""
    tenant: str = ""
    device: str = ""


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    jti: str = ""
    tenant: str = ""
    device: str = ""


class _Revoke(_Named, forbid_unknown_fields=True, kw_only=True):
    until: float


class _Disconnect(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str
    device: str


_Rate = Annotated[float, msgspec.Meta(gt=0, le=100_000)]


class _Steer(msgspec.Struct, forbid_unknown_fields=True):
    for_s: Annotated[float, msgspec.Meta(gt=0, le=STEER_S_MAX)]
    rate_per_s: _Rate | None = None
    rate_floor_per_s: _Rate | None = None
    burst: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    now: bool = False


def parse_drain(body: bytes) -> bool:
    """Whether to stop at once instead of giving each device a slot elsewhere.

    Raises:
        BadOrder: the body is no such order.
    """
    return _decode(body or b"{}", _Drain).now


def parse_revoke(
    body: bytes, *, now: float, is_token: Callable[[str], bool]
) -> tuple[Subject, float]:
    """What to revoke, and until when (Unix time in seconds).

    Args:
        body: JSON.
        now: Unix time in seconds.
        is_token: the grammar of tenant and device.

    Raises:
        BadOrder: the body is no such order.
    """
    order = _decode(body, _Revoke)
    subject = _subject(order, is_token)
    if not math.isfinite(order.until) or order.until > UNTIL_MAX:
        raise BadOrder("until is beyond the year 9999")
    if order.until <= now:
        raise BadOrder("until is in the past; to undo a revocation, post /unrevoke")
    return subject, order.until


def parse_unrevoke(body: bytes, *, is_token: Callable[[str], bool]) -> Subject:
    """What to let in again.

    Raises:
        BadOrder: the body is no such order.
    """
    return _subject(_decode(body, _Named), is_token)


def parse_disconnect(body: bytes, *, is_token: Callable[[str], bool]) -> tuple[str, str]:
    """Tenant and device whose session must end.

    Raises:
        BadOrder: the body is no such order.
    """
    order = _decode(body, _Disconnect)
    check_names(order.tenant, order.device, is_token)
    return order.tenant, order.device


def parse_steer(body: bytes) -> tuple[dict[str, float | str], float]:
    """The settings that are to be changed, with their values, and for how many seconds.

    Raises:
        BadOrder: the body is no such order.
    """
    order = _decode(body, _Steer)
    values = {name: value for name, value in msgspec.structs.asdict(order).items() if value}
    for_s = values.pop("for_s")
    if not values:
        raise BadOrder("name rate_per_s, rate_floor_per_s, burst or log_level")
    return values, for_s


def parse_nothing(body: bytes) -> None:
    """
    Raises:
        BadOrder: the body is not empty, and not `{}`.
    """
    _decode(body or b"{}", _Nothing)


def check_names(tenant: str, device: str, is_token: Callable[[str], bool]) -> None:
    """
    Raises:
        BadOrder: no device could have that name.
    """
    for name, value in (("tenant", tenant), ("device", device)):
        if not is_token(value):
            raise BadOrder(f"{name} must match [A-Za-z0-9_-]{{1,64}}")


def _subject(order: _Named, is_token: Callable[[str], bool]) -> Subject:
    if bool(order.jti) == bool(order.device) or bool(order.device) != bool(order.tenant):
        raise BadOrder("name a jti, or a tenant and a device")
    if order.device:
        check_names(order.tenant, order.device, is_token)
    if len(order.jti) > JTI_CHARS_MAX:
        raise BadOrder(f"jti is longer than {JTI_CHARS_MAX} characters")
    return Subject(order.jti, order.tenant, order.device)


def _decode(body: bytes, kind: type[_Order]) -> _Order:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadOrder(str(exc)) from None
