"""What became of the messages after a disaster, as a table and verdicts."""

from loadtest.benches.rig import Bench
from loadtest.checker import Checker
from loadtest.lab.scene import Scene

Run = tuple[str, Scene, Checker, str]
"""A name, the scene, what the checker found, and a note."""


def show(bench: Bench, title: str, *runs: Run) -> None:
    """Print what became of the messages, a column a run."""
    rows = [
        ("acknowledged", *(f"{scene.writers.acked:,}" for _, scene, _, _ in runs)),
        ("stored", *(f"{checker.stored:,}" for _, _, checker, _ in runs)),
    ]
    for number, (kind, _finding) in enumerate(runs[0][2].findings()):
        counts = [checker.findings()[number][1].count for _, _, checker, _ in runs]
        rows.append((kind, *(f"{count:,}" for count in counts)))
    rows.append(("", *(note for _, _, _, note in runs)))
    bench.report.table(title, ("", *(name for name, _, _, _ in runs)), rows)


def judge_damage(bench: Bench, checker: Checker) -> None:
    """No message may be hurt."""
    bench.report.none("damage", sum(finding.count for _name, finding in checker.findings()))


def judge(bench: Bench, title: str, scene: Scene, checker: Checker, note: str) -> None:
    """No message may be hurt, and no device disconnected."""
    show(bench, title, ("", scene, checker, note))
    judge_damage(bench, checker)
    bench.report.none("device closes", scene.writers.log.cut)
