import logging

import pytest

from support.outboxes import SetClocks
from tidegate.outbox import Outbox


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
