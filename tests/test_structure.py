"""The size of the house: no module, function or class is larger than a reader can hold.

Of tests, only the modules are measured: a table of cases may fill a function.
And what the linters let pass has its reason beside it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TOP: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("gateway", "clients/python/tidegate", "clients/conformance", "loadtest")
_MODULE_LINES_MAX: Final = 350
_COMPOSITION_LINES_MAX: Final = 250
_FUNCTION_LINES_MAX: Final = 50
"""From `def` to the last line, without the docstring."""
_ATTRIBUTES_MAX: Final = 12

_COMPOSITIONS: Final = (
    "gateway/app.py",
    "gateway/sinks.py",
    "gateway/node/admission.py",
    "gateway/node/devices.py",
    "gateway/node/device_port.py",
    "gateway/node/operators.py",
    "gateway/node/storage.py",
)
_TABLES: Final[dict[str, str]] = {}
"""Modules that may be longer, since they are tables of data, each with the reason."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _modules() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        for path in sorted((_TOP / package).rglob("*.py")):
            yield str(path.relative_to(_TOP)), path.read_text()


def _code_lines(function: _Function) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def _attributes(cls: ast.ClassDef) -> set[str]:
    """What methods assign to `self`, and the fields of a dataclass that is not frozen."""
    found = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    decorators = " ".join(ast.unparse(each) for each in cls.decorator_list)
    if "dataclass" in decorators and "frozen=True" not in decorators:
        found |= {
            field.target.id
            for field in cls.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
    return found


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | _Function]]:
    """Each class and function of a module with its dotted name."""
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        prefix, node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{child.name}"
                yield name, child
                pending.append((f"{name}.", child))
            else:
                pending.append((prefix, child))


def _too_large() -> dict[str, str]:
    """What is too large: `module`, or `module:name`, and by how much."""
    found = {}
    for module, text in _modules():
        limit = _COMPOSITION_LINES_MAX if module in _COMPOSITIONS else _MODULE_LINES_MAX
        lines = len(text.splitlines())
        if lines > limit and module not in _TABLES:
            found[module] = f"{lines} lines of {limit}"
        for name, definition in _definitions(ast.parse(text)):
            if isinstance(definition, ast.ClassDef):
                count, limit, unit = len(_attributes(definition)), _ATTRIBUTES_MAX, "attributes"
            else:
                count, limit, unit = _code_lines(definition), _FUNCTION_LINES_MAX, "lines"
            if count > limit:
                found[f"{module}:{name}"] = f"{count} {unit} of {limit}"
    return found


def test_nothing_is_too_large() -> None:
    assert _too_large() == {}


def test_no_module_of_tests_is_too_large() -> None:
    lengths = {
        str(path.relative_to(_TOP)): len(path.read_text().splitlines())
        for path in sorted((_TOP / "tests").rglob("*.py"))
    }
    assert len(lengths) > 100
    assert {path: n for path, n in lengths.items() if n > _MODULE_LINES_MAX} == {}


def test_each_exception_from_a_lint_rule_has_its_reason() -> None:
    assert [
        f"{module}:{number}"
        for module, text in _modules()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"# noqa(?!: [A-Z0-9, ]+  # \S)", line)
    ] == []
