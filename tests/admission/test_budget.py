"""CPU time for signatures that were not checked before is bounded."""

import pytest

from gateway.admission.budget import VerificationBudget


def test_the_budget_bounds_signature_work_and_keeps_a_part_for_ticket_holders():
    budget = VerificationBudget(share=0.2, now=0.0)
    spent = 0
    while budget.allows(0.0, has_ticket=False):
        budget.spend(0.0001, 0.0)
        spent += 1
    assert spent == pytest.approx(1_500, abs=5)
    assert budget.allows(0.0, has_ticket=True)
    total = spent
    for step in range(1, 10_001):
        while budget.allows(step / 1000, has_ticket=True):
            budget.spend(0.0001, step / 1000)
            total += 1
    assert total * 0.0001 / 10 <= 0.2 * 1.11
    assert budget.spent_s == pytest.approx(total * 0.0001)
