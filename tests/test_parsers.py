"""The list of what parses hostile bytes is complete, and each parser in the server is searched."""

from __future__ import annotations

from .fuzzing import TARGETS
from .parsers import PARSERS, ROOT, SERVER, all_modules, parsing_modules, table

PAGE = ROOT / "docs" / "isolation-attacks.md"
BEGIN, END = "<!-- parsers -->\n", "<!-- /parsers -->\n"


def test_every_module_that_parses_is_in_the_list_once():
    listed = [module for each in PARSERS for module in each.modules]
    assert len(listed) == len(set(listed))
    assert set(listed) <= all_modules()
    missing = {name: calls for name, calls in parsing_modules().items() if name not in listed}
    assert missing == {}, "say in tests/parsers.py what they parse, and in which process"


def test_hostile_bytes_are_parsed_in_the_server_only_where_they_are_searched():
    for each in PARSERS:
        hostile = each.of != "host"
        assert set(each.targets) <= set(TARGETS)
        if each.process == SERVER and hostile:
            assert each.targets, f"{each.what}: make a target in tests/fuzzing.py"
            assert each.bound, f"{each.what}: what limits it?"
    assert {target for each in PARSERS for target in each.targets} == set(TARGETS)


def test_the_page_has_the_list():
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == table().strip(), f"docs/isolation-attacks.md should say:\n{table()}"
