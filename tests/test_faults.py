"""The table of faults and the tests that make them: each names the other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- tests -->\n", "<!-- /tests -->\n"


def rows() -> list[str]:
    """Give the names of the rows, in their order."""
    return re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def marked() -> dict[str, list[str]]:
    """Give for each fault the tests that make it, as ``file::name``."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for name in faults_of(node):
                    test = f"`{path.relative_to(ROOT / 'tests')}::{node.name}`"
                    found.setdefault(name, []).append(test)
    return found


def faults_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [
        each.value
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "fault"
        for each in decorator.args
        if isinstance(each, ast.Constant)
    ]


def test_every_fault_has_a_test_and_every_test_a_fault():
    assert len(rows()) == len(set(rows())) > 10
    assert set(marked()) == set(rows())


def test_every_row_says_what_is_seen_for_how_long_and_what_brings_it_back():
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 5, line
            assert all(len(cell) > 2 for cell in cells), line


def test_each_test_of_faults_says_which():
    for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if is_function and node.name.startswith("test_"):
                assert faults_of(node), f"{path.name}::{node.name} has no @fault"


def test_the_page_names_the_tests_that_make_each_fault():
    by_fault = marked()
    lines = []
    for name in rows():
        lines.append(f"- **{name}**")
        lines += [f"  - {test}" for test in sorted(set(by_fault.get(name, [])))]
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()
    wanted = "\n".join(lines)
    assert shown == wanted, f"docs/faults.md should say:\n{wanted}"
