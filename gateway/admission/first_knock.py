"""The first knock of a storm is spread over what the gateway can refuse in a second. Pure.

A device that lost its connection waits at random for up to `spread_ms`, so all first knocks
together are no more than the gateway can answer.
"""


def refusals_per_s(least_per_s: float, rate_per_s: float) -> float:
    """How many knocks a node can refuse in a second.

    Args:
        least_per_s: as set; what the machine can do.
        rate_per_s: R. A node that admits so many devices can refuse at least twice as many.
    """
    return max(least_per_s, 2 * rate_per_s)


def spread_ms(devices: int, refusals_per_s: float, *, least_ms: int) -> int:
    """Over how many milliseconds a fleet spreads its first knock.

    Args:
        devices: of the fleet.
        refusals_per_s: knocks that can be refused in a second.
        least_ms: the shortest spread.
    """
    return max(least_ms, int(devices * 1_000 / refusals_per_s))
