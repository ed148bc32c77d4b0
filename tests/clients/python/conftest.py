import importlib.util
import logging
from pathlib import Path

import pytest

from support.outboxes import SetClocks
from tidegate.outbox import Outbox

# Where only the client is installed (`make client-matrix`), tests that need a gateway are left out.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if importlib.util.find_spec("nats") is None and "support.gateways" in path.read_text()
]


def pytest_report_header():
    return f"left out, for want of a gateway: {', '.join(collect_ignore)}" if collect_ignore else []


@pytest.fixture
def open_box(tmp_path):
    """Opens outbox files of this test, and closes them after it."""
    opened = []

    def open_it(name="box", limits=None, clocks=None):
        outbox = Outbox(tmp_path / name, limits, clocks or SetClocks())
        opened.append(outbox)
        return outbox

    yield open_it
    for outbox in opened:
        outbox.close()


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    """The client and its libraries at DEBUG, so that a credential in any line fails the test.

    The scripted gateway's own library would log what clients send it, and is none of ours.
    """
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "websockets.server")
