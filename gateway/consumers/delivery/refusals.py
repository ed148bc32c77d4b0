"""What JetStream says of publishes that it did not store (`errors.json` of nats-server)."""

from typing import Final

BATCH_TOO_LARGE: Final = 10199
ONE_BY_ONE: Final = frozenset(
    {
        10054,  # one of them is too large
        10097,  # headers too large
        10174,  # batches are not enabled
        10175,
        10176,  # incomplete: one of them may have been refused on its way
        10177,
        10200,
        10201,  # one of them is stored already
        10205,
        10206,  # too many batches at once
    }
)
"""Nothing of the batch is stored, and its messages can go one by one."""
NOTHING_STORED: Final = ONE_BY_ONE | {BATCH_TOO_LARGE}
NEVER: Final = {10054: "too_large", 10097: "headers_too_large"}
"""The message can never be stored; with the error of its letter."""
