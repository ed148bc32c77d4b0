"""Objectives are judged by what was observed after the fault, and a miss fails the scenario."""

import io

import pytest
from rich.console import Console

from loadtest.lab.judgement import Outcome, judge
from loadtest.lab.observations import MachineSample, Observations, Sample
from loadtest.lab.report import page_of, write_report
from loadtest.lab.scenario import Objectives, Scenario
from loadtest.simulator import StormPlan, simulate

FAULT_AT = 10.0


def outcome(
    objectives, *, devices=100, last=12.0, all_back=True, recovers_from=FAULT_AT, **changes
):
    """100 devices at 50/s, cut at 10 s, back evenly until `last`."""
    observed = Observations(lambda: 0.0)
    observed.admissions = [n / devices for n in range(devices)]
    observed.knocks = list(observed.admissions)
    for number in range(devices):
        at = FAULT_AT + (last - FAULT_AT) * (number + 1) / devices
        observed.knocks += [FAULT_AT + 0.1, at]
        observed.refusals.append((FAULT_AT + 0.1, 503))
        observed.admissions.append(at)
        observed.waits.append(at - FAULT_AT)
        observed.cuts.append(FAULT_AT)
    observed.lateness = [0.0] * 90
    observed.acks = {8: [0.01] * 100, 9: [0.01] * 100, 11: [0.03] * 100}
    observed.samples = [Sample(at, 50.0, "ceiling", 3, 100 << 20, at / 2) for at in range(16)]
    scenario = Scenario(
        title="test", fault="cut", devices=devices, rate_per_s=50.0,
        objectives=Objectives(**objectives),
    )  # fmt: skip
    found = {"stored": 500, **{kind: {"count": 0} for kind in ("lost", "duplicated")}}
    more = {"stored": found, "dishonoured": 0, "affected": devices, **changes}
    return Outcome(
        scenario=scenario, policy="ticket", observed=observed, calm=(7.0, FAULT_AT - 0.5),
        fault_at=FAULT_AT, recovers_from=recovers_from, back_at=last,
        all_back=all_back, acked=480, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reached", "missed"),
    [
        ("recovery_over_ideal", 1.0, 0.9),
        ("knocks_a_device", 2.0, 1.9),
        ("refused", 100, 99),
        ("ack_p99_over_calm", 3.1, 2.9),
        ("gateway_memory_mib", 100, 99),
    ],
)
def test_each_objective_can_be_reached_and_missed(name, reached, missed):
    assert judge(outcome({name: reached}), None).passed
    assert not judge(outcome({name: missed}), None).passed


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("lost", {"stored": {"stored": 1, "lost": {"count": 1}, "duplicated": {"count": 0}}}),
        ("duplicated", {"stored": {"stored": 1, "lost": {"count": 0}, "duplicated": {"count": 2}}}),
        ("dishonoured", {"dishonoured": 1}),
        ("disconnects", {"affected": 99}),
    ],
)
def test_damage_is_a_miss(name, damage):
    assert judge(outcome({name: 0}), None).passed
    assert not judge(outcome({name: 0}, **damage), None).passed


def test_what_could_not_be_measured_is_not_judged():
    judgement = judge(outcome({"lost": 0, "dishonoured": 0}, stored=None), None)
    assert [verdict.word for verdict in judgement.verdicts] == ["reached", "not judged"]
    assert judgement.passed


def test_a_device_left_out_fails_the_storm_whatever_else_is_reached():
    assert not judge(outcome({"dishonoured": 0}, all_back=False), None).passed


def test_forgers_are_judged_against_the_storm_without_them():
    honest = outcome({}, last=12.0)
    assert judge(outcome({"over_without_forgers": 1.2}, last=12.3), honest).passed
    assert not judge(outcome({"over_without_forgers": 1.2}, last=12.5), honest).passed


def test_tables_and_report_have_the_verdicts(tmp_path):
    storms = [outcome({"recovery_over_ideal": 1.05}), outcome({}, last=18.0, stored=None)]
    virtual = [simulate(StormPlan(devices=100, rate_per_s=50)), None]
    judgement = judge(storms[0], None)
    out = io.StringIO()
    judgement.show(Console(file=out, width=120), storms, virtual)
    assert "recovery over N/R" in out.getvalue()
    assert "passed" in out.getvalue()
    path = tmp_path / "report" / "storm.html"
    write_report(path, judgement, storms, virtual)
    page = path.read_text()
    assert "recovery over N/R" in page
    assert "data:image/svg+xml;base64," in page
    assert "http://" not in page.split("base64,")[0], "it needs nothing else"
    assert "<meta name='viewport' content='width=device-width" in page
    assert "machine was busy" not in page + out.getvalue()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_storm_that_is_too_small_is_named_in_the_doubts():
    small = judge(outcome({"recovery_over_ideal": 1.05}, devices=90), None)
    (said,) = small.doubts
    assert said.startswith("the storm is small: N/R is 1.8 s, and first knocks alone are spread")
    assert judge(outcome({"recovery_over_ideal": 1.05}, devices=100), None).doubts == []
    assert judge(outcome({"lost": 0}, devices=90), None).doubts == []


def test_a_busy_machine_is_named_in_table_and_report():
    busy = outcome({"recovery_over_ideal": 1.05})
    busy.observed.machine = [MachineSample(at, 2.0 * at, 0.5 * at) for at in range(16)]
    judgement = judge(busy, None, cores=2)
    out = io.StringIO()
    judgement.show(Console(file=out, width=200), [busy], [None])
    for said in (out.getvalue(), page_of(judgement, [busy], [None], [])):
        assert "other processes took 1.5 of 2 cores" in said
        assert "all 2 cores were busy for 100% of the storm" in said
    assert not judge(busy, None, cores=8).doubts[1:]


def test_recovery_counts_from_when_there_was_a_gateway_again():
    at_fault = outcome({"recovery_over_ideal": 1.0}, last=13.0)
    at_start = outcome({"recovery_over_ideal": 1.0}, last=13.0, recovers_from=FAULT_AT + 1.0)
    assert not judge(at_fault, None).passed
    assert judge(at_start, None).passed
    assert (at_fault.recovery_s, at_start.recovery_s) == (3.0, 2.0)
