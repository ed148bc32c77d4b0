"""Run Autobahn's fuzzing client against the production framing path.

    make conformance
    make conformance ARGS="--python2 /path/to/python2.7"

The suite (PyPI `autobahntestsuite`) needs a CPython 2.7 in which it is, or can be, installed. Its
exit status says nothing; its index.json does. Cases 1 to 7, 9 and 10 are the core protocol (301 of
them); 12 and 13 are permessage-deflate, which the gateway leaves off by default.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
CORE_CASES = 301
# addsitedir, not PYTHONPATH: zope.interface is found through a .pth file.
RUN = (
    "import site, sys; site.addsitedir({site!r}); sys.argv[0] = 'wstest'; "
    "from autobahntestsuite.wstest import run; run()"
)
SUITE_TIMEOUT_S = 1_200


def find_python2():
    """A CPython 2.7: of the PATH, or of pyenv."""
    candidates = [shutil.which("python2.7"), shutil.which("python2")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path / "bin" / "python") for path in sorted(pyenv.glob("2.7*"))]
    return next((path for path in candidates if path and is_python2(path)), None)


def is_python2(path):
    """Whether it runs: a shim of pyenv exists without its interpreter."""
    code = "import sys; sys.exit(sys.version_info[0] != 2)"
    return Path(path).exists() and not run([path, "-c", code])


def run(command):
    return subprocess.run(command, capture_output=True, check=False).returncode


def install_suite(python2, directory):
    """Where the suite can be imported from, installing it aside if need be."""
    if run([python2, "-c", "import autobahntestsuite"]):
        print(f"installing autobahntestsuite for {python2}", flush=True)
        target = directory / "site"
        subprocess.run(
            [python2, "-m", "pip", "install", "-q", "--target", str(target), "autobahntestsuite"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return str(target)
    return ""


def run_suite(python2, directory, cases):
    site = install_suite(python2, directory)
    echo = subprocess.Popen(
        [sys.executable, str(HERE / "echo.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(echo.stdout.readline())
        reports = directory / "reports"
        spec = {
            "outdir": str(reports),
            "servers": [{"agent": "tidegate", "url": f"ws://127.0.0.1:{port}"}],
            "cases": cases,
            "exclude-cases": ["12.*", "13.*"],
            "exclude-agent-cases": {},
        }
        (directory / "spec.json").write_text(json.dumps(spec))
        subprocess.run(
            [
                python2,
                "-c",
                RUN.format(site=site),
                "-m",
                "fuzzingclient",
                "-s",
                str(directory / "spec.json"),
            ],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            timeout=SUITE_TIMEOUT_S,
            check=True,
        )
        return json.loads((reports / "index.json").read_text())["tidegate"]
    finally:
        echo.terminate()
        echo.wait(20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python2", help="a CPython 2.7")
    parser.add_argument("--cases", nargs="*", default=["*"], help="e.g. 1.* 6.4.1")
    options = parser.parse_args()
    python2 = options.python2 or find_python2()
    if python2 is None:
        print("conformance: not run, no CPython 2.7 here (make conformance ARGS='--python2 PATH')")
        return 0
    with tempfile.TemporaryDirectory(prefix="tidegate-autobahn-") as directory:
        results = run_suite(python2, Path(directory), options.cases)
    counts = Counter((result["behavior"], result["behaviorClose"]) for result in results.values())
    for (behavior, close), number in counts.most_common():
        print(f"{number:5d}  {behavior}, close {close}")
    failed = {
        case: result
        for case, result in sorted(results.items())
        if not {result["behavior"], result["behaviorClose"]} <= PASSED
    }
    for case, result in failed.items():
        print(f"case {case}: {result['behavior']}, close {result['behaviorClose']}")
    print(f"{len(results)} cases, {len(failed)} failed")
    complete = len(results) == CORE_CASES or options.cases != ["*"]
    if not complete:
        print(f"expected {CORE_CASES} cases")
    return 0 if complete and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
