"""Why a session ends. One class a cause; each knows its close code and its JSON reason.

SessionError
 +-- UnsupportedData     1003  a binary message
 +-- DataError           1007  not UTF-8, not JSON
 +-- PolicyViolation     1008  a rule of the protocol: hello, gap, credit, frame, depth, fragments
 +-- InternalError       1011  the gateway cannot go on, through no fault of the device
 +-- CredentialExpired   4401
 +-- Revoked             4403
 +-- TakenOver           4409
"""

import json
from typing import ClassVar

from tidegate.wire import frames

REASON_MAX_BYTES = 123
"""RFC 6455 section 5.5: a control frame carries 125 bytes, two of which are the close code."""


def close_reason(error: str, detail: str = "") -> str:
    """Encode the close reason `{"error":..,"detail":..}`; `detail` is cut to fit 123 bytes."""
    reason = {"error": error, "detail": detail} if detail else {"error": error}
    text = json.dumps(reason, separators=(",", ":"))
    while detail and len(text) > REASON_MAX_BYTES:
        detail = detail[: len(detail) - max(1, (len(text) - REASON_MAX_BYTES + 5) // 6)]
        text = json.dumps({"error": error, "detail": detail}, separators=(",", ":"))
    return text


class SessionError(Exception):
    """The session ends with `close_code`; `error` names the offence, `detail` shows the value."""

    close_code: ClassVar[int]

    def __init__(self, error: str, detail: str = "") -> None:
        super().__init__(f"{error}: {detail}" if detail else error)
        self.error = error
        self.detail = detail

    @property
    def reason(self) -> str:
        return close_reason(self.error, self.detail)


class UnsupportedData(SessionError):
    close_code = frames.CLOSE_UNSUPPORTED_DATA


class DataError(SessionError):
    close_code = frames.CLOSE_INVALID_DATA


class PolicyViolation(SessionError):
    close_code = frames.CLOSE_POLICY


class InternalError(SessionError):
    close_code = frames.CLOSE_INTERNAL

    def __init__(self, detail: str = "") -> None:
        super().__init__("internal", detail)


class CredentialExpired(SessionError):
    close_code = frames.CLOSE_CREDENTIAL

    def __init__(self, detail: str = "") -> None:
        super().__init__("credential", detail)


class Revoked(SessionError):
    close_code = frames.CLOSE_REVOKED

    def __init__(self, detail: str = "") -> None:
        super().__init__("revoked", detail)


class TakenOver(SessionError):
    close_code = frames.CLOSE_TAKEN_OVER

    def __init__(self, detail: str = "a newer connection of this device") -> None:
        super().__init__("taken_over", detail)
