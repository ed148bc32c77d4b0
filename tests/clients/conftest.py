import logging

import pytest


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    """The client and its libraries at DEBUG, so that a credential in any line fails the test.

    The scripted gateway's own library would log what clients send it, and is none of ours.
    """
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "websockets.server")
