"""A headless Chromium for tests. Without one they are skipped and say so; in CI they fail."""

import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from loadtest.servers import chromium
from loadtest.servers.chromium import Page

__all__ = ["Page", "browser_page", "chromium_program"]


def chromium_program() -> str:
    """Its program, or the test ends here."""
    found = chromium.find_chromium()
    if found is None:
        missing = "NO CHROMIUM: the live page is NOT tested (make debian)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@contextlib.asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    """A tab of a fresh browser."""
    async with chromium.browser_page(chromium_program()) as page:
        yield page
