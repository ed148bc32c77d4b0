"""The example of the client's README, run as it stands there."""

import inspect
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[4] / "clients" / "python" / "README.md"


def _tests_of_the_example():
    chapter = README.read_text().split("## Testing your application")[1].split("\n## ")[0]
    names = {}
    for block in re.findall(r"```python\n(.*?)```", chapter, re.DOTALL):
        exec(compile(block, str(README), "exec"), names)
    return {name: value for name, value in names.items() if name.startswith("test_")}


TESTS = _tests_of_the_example()


@pytest.mark.parametrize("name", TESTS)
async def test_the_example_of_the_readme_passes(name, tmp_path):
    assert inspect.iscoroutinefunction(TESTS[name])
    await TESTS[name](tmp_path)


def test_the_readme_has_an_example():
    assert TESTS
