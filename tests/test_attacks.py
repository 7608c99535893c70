"""The catalogue of attacks and the tests that make them: each names the other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.isolation.test_ordinary_user import AGAIN

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "isolation-attacks.md"
BEGIN, END = "<!-- tests -->\n", "<!-- /tests -->\n"

# What these attack does not exist yet.
NOT_YET = {"T34", "T35", "T36", "T38"}
ALL = {f"T{number:02}" for number in range(1, 41)}


def marked() -> dict[str, list[str]]:
    """Give for each attack the tests that make it, as ``file::name``."""
    found: dict[str, list[str]] = {number: [] for number in sorted(ALL)}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for number in numbers_of(node):
                    assert number in found, f"{path.name}::{node.name}: there is no {number}"
                    test = f"{path.relative_to(ROOT / 'tests')}::{node.name}"
                    found[number].append(f"`{test}` {engines_of(node, test)}".rstrip())
    return found


def numbers_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    numbers = re.findall(r"^test_(t\d\d)_", node.name)
    numbers += [
        each.value
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "attack"
        for each in decorator.args
        if isinstance(each, ast.Constant)
    ]
    return [number.upper() for number in numbers]


# D: Docker with runc, G: Docker with gVisor, B: bubblewrap, U: bubblewrap of an ordinary user's server
ENGINES_OF = {
    "lab": "DGBU",
    "isolating_lab": "DGBU",
    "local_lab": "DGB",
    "filtered_lab": "DBU",
    "grouped_lab": "DB",
    "container_lab": "DG",
    "gvisor_lab": "G",
    "bubblewrap_lab": "B",
    "api": "DB",
}


def engines_of(node: ast.FunctionDef | ast.AsyncFunctionDef, test: str) -> str:
    """Give on which engines a test runs: "(D B)"; "" for what no engine changes."""
    if test.startswith("browser/"):
        return ""
    fixtures = {argument.arg for argument in node.args.args}
    letters = set("".join(ENGINES_OF.get(fixture, "") for fixture in fixtures))
    if "on_gvisor" in "".join(map(ast.unparse, node.decorator_list)):
        letters.add("G")
    if "gvisor_" in node.name:  # made for it alone
        letters = {"G"}
    if test in AGAIN:
        letters.add("U")
    return f"({' '.join(each for each in 'DGBU' if each in letters)})" if letters else ""


def catalogue() -> dict[str, str]:
    """Give the attacks of the page by number."""
    rows = re.findall(r"^\| (T\d\d) \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def table() -> str:
    """Give the part of the page that says which tests make which attack."""
    lines = []
    for number, tests in marked().items():
        if not tests:
            lines.append(f"- **{number}**: none; what it attacks does not exist yet")
            continue
        lines.append(f"- **{number}**")
        lines += [f"  - {test}" for test in sorted(set(tests))]
    return "\n".join(lines) + "\n"


def test_every_attack_is_made_by_a_test_unless_there_is_nothing_to_attack():
    missing = {number for number, tests in marked().items() if not tests}
    assert missing <= NOT_YET, f"no test makes {sorted(missing - NOT_YET)}"


def test_the_page_has_every_attack():
    assert set(catalogue()) == ALL
    assert all(len(what) > 10 for what in catalogue().values())


def test_the_page_names_the_tests_that_make_each_attack():
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == table().strip(), f"docs/isolation-attacks.md should say:\n{table()}"


def test_the_numbers_of_the_doctors_attacks_are_in_the_catalogue():
    source = (ROOT / "jupyter_sandbox" / "cli" / "probe_inside.py").read_text(encoding="utf-8")
    numbers = set(re.findall(r'attack\(\s*"(T\d\d)"', source))
    assert len(numbers) > 8
    assert numbers <= ALL
