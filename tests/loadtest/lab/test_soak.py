"""The soak: the slope it computes, and a run of some seconds."""

import pytest

from loadtest.lab import soak


def test_a_slope_is_that_of_the_straight_line():
    assert soak.slope_in_ten_minutes([(0, 100), (60, 160), (120, 220)]) == pytest.approx(600)
    assert soak.slope_in_ten_minutes([(0, 5.0), (10, 5.0), (20, 5.0)]) == 0
    assert soak.slope_in_ten_minutes([(0, 5.0), (10, 9.0)]) == 0, "two points say nothing"


@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_short_run_does_everything_and_ends(tls, capsys, monkeypatch):
    monkeypatch.setattr(soak, "_SAMPLE_S", 0.25)
    assert soak.run(0.05, 20, tls=tls) in (0, 1)
    said = capsys.readouterr().out
    assert "memory after the warm-up" in said
    assert "101" in said
