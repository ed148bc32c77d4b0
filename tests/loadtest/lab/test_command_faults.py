"""The fault run of queued commands, short; and its checker, which must find what is wrong."""

import pytest

from loadtest.lab import command_faults
from loadtest.lab.command_checker import Findings, _judge


def findings(*statuses, given, reason=""):
    found = Findings()
    history = [{"status": status} for status in statuses]
    if reason:
        history[-1]["reason"] = reason
    _judge(found, history, was_given=given)
    return found


@pytest.mark.parametrize(
    ("statuses", "given", "reason"),
    [
        (("queued", "sent", "delivered", "done"), True, ""),
        (("sent", "failed"), True, "jammed"),
        (("queued", "failed"), False, "cancelled"),
        (("queued", "expired"), False, ""),
        (("sent", "unknown"), False, ""),
        (("sent", "unknown"), True, ""),
    ],
)
def test_a_true_status_is_clean(statuses, given, reason):
    assert findings(*statuses, given=given, reason=reason).clean


@pytest.mark.parametrize(
    ("statuses", "given", "reason", "what"),
    [
        (("queued", "sent"), True, "", "unsettled"),
        ((), False, "", "unsettled"),
        (("queued", "delivered", "done"), True, "", "illegal"),
        (("sent", "done", "unknown"), True, "", "illegal"),
        (("sent", "delivered", "unknown"), False, "", "untrue"),
        (("sent", "done"), False, "", "untrue"),
        (("queued", "expired"), True, "", "untrue"),
        (("queued", "failed"), True, "cancelled", "untrue"),
    ],
)
def test_a_status_that_is_not_true_is_found(statuses, given, reason, what):
    assert getattr(findings(*statuses, given=given, reason=reason), what) == 1


@pytest.mark.long
async def test_commands_through_faults():
    few = {"commands": 60, "devices": 6, "processes": 3, "faults": 1, "seed": 3}
    arguments = [text for name, value in few.items() for text in (f"--{name}", str(value))]
    assert await command_faults.run(command_faults.options_of(arguments)) == 0
