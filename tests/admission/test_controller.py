import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.controller import ControllerSettings, Marks, RateController

SETTINGS = ControllerSettings(
    floor_per_s=50,
    ceiling_per_s=1_000,
    marks={"puback_p99": Marks(0.2, 0.5), "loop_lag": Marks(0.05, 0.1)},
)


def test_a_bad_signal_halves_its_way_down_to_the_floor_and_is_named():
    controller = RateController(SETTINGS)
    rates = [controller.observe({"puback_p99": 1.0}, float(now)) for now in range(60)]
    assert rates[0] == 700
    assert rates[1] == 700, "an effect is awaited before the next decrease"
    assert min(rates) == rates[-1] == 50
    assert controller.limited_by == "puback_p99"


def test_a_signal_on_its_high_mark_is_not_bad():
    controller = RateController(SETTINGS)
    assert controller.observe({"puback_p99": 0.5}, 0.0) == 1_000
    assert controller.limited_by == "ceiling"


def test_it_climbs_back_additively_once_all_is_good():
    controller = RateController(SETTINGS)
    controller.observe({"loop_lag": 0.3}, 0.0)
    rates = [controller.observe({}, 3.0 + now) for now in range(10)]
    assert rates[:3] == [750, 800, 850]
    assert rates[-1] == 1_000
    assert controller.limited_by == "ceiling"


def test_without_a_bad_signal_r_goes_to_a_new_ceiling_at_once():
    controller = RateController(SETTINGS)
    controller.steer(floor_per_s=3_000, ceiling_per_s=2_000)
    assert (controller.rate_per_s, controller.limited_by) == (2_000, "ceiling")
    assert controller.observe({"loop_lag": 0.3}, 0.0) == 2_000, "the floor is the ceiling"


def test_an_r_that_a_signal_limits_stays_within_new_bounds():
    controller = RateController(SETTINGS)
    controller.observe({"loop_lag": 0.3}, 0.0)
    for floor, ceiling, rate in ((50, 2_000, 700), (50, 600, 600), (650, 900, 650)):
        controller.steer(floor_per_s=floor, ceiling_per_s=ceiling)
        assert (controller.rate_per_s, controller.limited_by) == (rate, "loop_lag")


def test_between_the_marks_nothing_moves():
    controller = RateController(SETTINGS)
    controller.observe({"loop_lag": 0.3}, 0.0)
    assert {controller.observe({"loop_lag": 0.07}, float(now)) for now in range(5, 50)} == {700}


@given(st.lists(st.floats(0, 5), max_size=200))
def test_it_never_leaves_its_bounds(values):
    controller = RateController(SETTINGS)
    for now, value in enumerate(values):
        assert 50 <= controller.observe({"puback_p99": value}, float(now)) <= 1_000


def test_in_a_closed_loop_it_settles_instead_of_oscillating():
    """Latency grows with the rate, with noise, like that of a downstream that saturates."""
    rng, controller, rates = random.Random(1), RateController(SETTINGS), []
    for now in range(600):
        load = controller.rate_per_s / 600  # sustainable: 600/s
        latency = 0.1 + (0.6 * load**4) * rng.uniform(0.8, 1.2)
        rates.append(controller.observe({"puback_p99": latency}, float(now)))
    settled = rates[100:]
    changes = sum(a != b for a, b in itertools.pairwise(settled))
    assert 300 < sum(settled) / len(settled) < 700
    assert changes < 100
