"""What the look-up of a device says about its session."""

import time
from typing import Any

from gateway.edge.device.exchange import Exchange
from gateway.session.fairness import Share
from gateway.session.machine import Session
from gateway.session.regions import Departure


def describe(
    fence: int, session: Session, share: Share, sent_at: float, exchange: Exchange | None
) -> dict[str, Any]:
    """
    Args:
        fence: orders the sessions of a device; 0 before hello.
        session: its state.
        share: whether the device sends far more than others.
        sent_at: when its last message came, by `time.perf_counter`; 0 if there was none.
        exchange: what the device was told; None once its connection is gone.
    """
    now = time.perf_counter()
    acked_at = exchange.acked_at if exchange is not None else 0.0
    return {
        "id": session.id,
        "fence": fence,
        "state": session.state.value,
        "leaving": session.departure is not Departure.STAYING,
        "acked": session.acked,
        "credit": session.credit,
        "unsettled": session.unsettled,
        "greedy": share.greedy,
        "last_message_s_ago": round(now - sent_at, 3) if sent_at else None,
        "last_ack_s_ago": round(now - acked_at, 3) if acked_at else None,
    }
