"""`make compiled`: the objects of admission, built with mypyc, are held to the same tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent


@pytest.mark.long  # a minute of CPU; `.ci/run` makes the target beside the tests
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_the_compiled_objects_pass_the_tests_of_the_interpreted_ones():
    done = subprocess.run(
        [sys.executable, ".ci/compiled.py"],
        cwd=TOP, check=False, capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
