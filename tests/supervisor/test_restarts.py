"""When a worker that has died is started again."""

import random

from gateway.supervisor.restarts import AT_ONCE_S, DEATHS_MAX, FIRST_S, MOST_S, RestartPolicy


class Highest(random.Random):
    """Draws the end of each range."""

    def uniform(self, a, b):
        del a
        return b


def test_the_wait_doubles_with_each_death_at_once_and_then_the_worker_is_given_up():
    policy = RestartPolicy(Highest())
    waits = [policy.died(0.1) for _ in range(DEATHS_MAX)]
    assert waits == [FIRST_S * 2**n for n in range(1, DEATHS_MAX)] + [None]


def test_a_worker_that_has_lived_begins_anew():
    policy = RestartPolicy(Highest())
    for _ in range(DEATHS_MAX - 1):
        policy.died(0.1)
    assert policy.died(AT_ONCE_S) == FIRST_S
    assert [policy.died(0.1) for _ in range(DEATHS_MAX)][-1] is None


def test_the_wait_is_drawn_below_its_ceiling():
    policy = RestartPolicy(random.Random(1))
    waits = {policy.died(AT_ONCE_S) for _ in range(100)}
    assert len(waits) == 100
    assert all(0 <= wait <= FIRST_S < MOST_S for wait in waits)
