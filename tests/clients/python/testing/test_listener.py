"""Connections in memory, and executors without a thread."""

import pytest

from support.waiting import within
from tidegate.connection import Closed
from tidegate.testing import (
    InlineExecutor,
    Listener,
)


async def test_a_fault_of_a_script_is_raised_at_the_end():
    async def broken(_peer):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with Listener(lambda _knock: broken) as listener:
            connection = await listener.connect("ws://x/", "t", None)
            with pytest.raises(Closed):
                await within(connection.receive())


async def test_an_error_of_the_test_is_not_hidden_by_one_of_a_script():
    async def broken(_peer):
        raise ZeroDivisionError

    with pytest.raises(LookupError):
        async with Listener(lambda _knock: broken) as listener:
            connection = await listener.connect("ws://x/", "t", None)
            with pytest.raises(Closed):
                await within(connection.receive())
            raise LookupError


def test_a_job_that_fails_inline_fails_in_its_future():
    def fail():
        raise LookupError

    executor = InlineExecutor()
    assert executor.submit(lambda a, b: a + b, 1, b=2).result() == 3
    assert isinstance(executor.submit(fail).exception(), LookupError)
    executor.shutdown()
