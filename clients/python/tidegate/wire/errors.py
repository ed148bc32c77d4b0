"""Why bytes are no frame of the contract.

WireError
 +-- FrameError   not UTF-8, not JSON, nested too deep, or members that the contract does not know
"""


class WireError(ValueError):
    """Base of the errors of the contract."""


class FrameError(WireError):
    """The bytes are no frame of the contract. `error` is the name used in close reasons."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail
