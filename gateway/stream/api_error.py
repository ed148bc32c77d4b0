"""The error of an answer of JetStream, whatever was asked."""

from msgspec import Struct


class ApiError(Struct):
    """Why JetStream did not do what it was asked."""

    err_code: int = 0
    """Its number in the server's `errors.json`; 0 if the server names none."""
    description: str = ""
