"""The catalogue of attacks, the tests that make them, and the tiers they run on: each names the other."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.collected_attacks import AGAIN, ROOT, attacks

PAGE = ROOT / "docs" / "isolation-attacks.md"
BEGIN, END = "<!-- tests -->\n", "<!-- /tests -->\n"
TIERS_BEGIN, TIERS_END = "<!-- tiers -->\n", "<!-- /tiers -->\n"

# What these attack does not exist yet.
NOT_YET = {"T34", "T35", "T36", "T38"}
ALL = {f"T{number:02}" for number in range(1, 41)} | {"T50", "T51", "T52", "T53"}

# Tests that do not run on every tier, and why; every attack does, by another test.
PARTLY = {
    "end_to_end/test_packages.py::test_apt_installs_a_package_that_can_be_run": (
        "under bubblewrap there are the host's programs, and no apt"
    ),
    "engines/test_disk_image.py::test_fallocate_many_files_and_deleted_open_ones_are_counted": (
        "a file system of its own has only bubblewrap as root; the others are watched"
    ),
    "engines/test_disk_image.py::test_writing_ends_at_the_limit_wherever_it_is": (
        "a file system of its own has only bubblewrap as root; the others are watched"
    ),
    "engines/test_gvisor.py::test_a_fork_bomb_ends_the_sandbox_and_stays_within_the_hosts_limit": (
        "elsewhere the fork fails"
    ),
    "engines/test_gvisor.py::test_inside_are_the_capabilities_and_resource_limits_that_were_asked_for": (
        "elsewhere the host shows them"
    ),
    "engines/test_isolation.py::test_a_fork_bomb_ends_at_the_process_limit": (
        "under gVisor the sandbox ends"
    ),
    "engines/test_isolation.py::test_it_is_not_the_hosts_root_and_can_gain_nothing": (
        "under gVisor the host sees no process of the sandbox"
    ),
    "engines/test_isolation.py::test_limits_read_back_from_the_host_are_those_that_were_asked_for": (
        "under gVisor the host sees no process of the sandbox"
    ),
    "engines/test_isolation.py::test_too_much_memory_ends_the_process_that_takes_it": (
        "under gVisor the sandbox ends"
    ),
    "engines/test_system_calls.py::test_another_user_inside_gains_nothing_by_a_setuid_program_of_root": (
        "under bubblewrap there is no other user inside"
    ),
    "engines/test_system_calls.py::test_what_reaches_for_the_host_is_refused": (
        "under gVisor no call is the host's"
    ),
}


# Why an attack runs on a tier in `make test-all` only.
IN_MAKE_TEST_ALL = {
    "T03": ("G", "the server bounds what it accepts; the sender's kernel has no part in it"),
    "T11": ("G", "the proxy bounds what it forwards; the sender's kernel has no part in it"),
    "T19": ("G", "bytes of a stream, which every kernel carries alike"),
}


@dataclass
class Attacking:
    """A test's attacks and tiers, and the tiers that it runs on in ``make test``."""

    numbers: set[str] = field(default_factory=set)
    tiers: set[str] = field(default_factory=set)
    often: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def collected(request) -> dict[str, Attacking]:
    """Each test that makes attacks, as pytest collects them."""
    found: dict[str, Attacking] = defaultdict(Attacking)
    for test, numbers, tiers, often in attacks(request.config):
        found[test].numbers.update(numbers)
        found[test].tiers.update(tiers)
        found[test].often.update(often)
    return found


def by_attack(collected: dict[str, Attacking]) -> dict[str, dict[str, Attacking]]:
    """Give for each attack its tests."""
    return {
        number: {test: each for test, each in collected.items() if number in each.numbers}
        for number in sorted(ALL)
    }


def catalogue() -> dict[str, str]:
    """Give the attacks of the page by number."""
    text = PAGE.read_text(encoding="utf-8").partition(TIERS_BEGIN)[0]
    return dict(re.findall(r"^\| (T\d\d) \| (.+?) \|", text, re.MULTILINE))


def list_of_tests(collected: dict[str, Attacking]) -> str:
    """Give the part of the page that says which tests make which attack."""
    lines = []
    for number, tests in by_attack(collected).items():
        if not tests:
            lines.append(f"- **{number}**: none; what it attacks does not exist yet")
            continue
        lines.append(f"- **{number}**")
        for test, each in sorted(tests.items()):
            where = f" ({tiers_of(each)})" if each.tiers else ""
            why = f": {PARTLY[test]}" if test in PARTLY else ""
            lines.append(f"  - `{test}`{where}{why}")
    return "\n".join(lines) + "\n"


def tiers_of(test: Attacking) -> str:
    """Give its tiers; those of ``make test-all`` only in small letters."""
    return " ".join(
        tier if tier in test.often else tier.lower() for tier in "DGBU" if tier in test.tiers
    )


def table_of_tiers(collected: dict[str, Attacking]) -> str:
    """Give the part of the page that counts the tests of each attack on each tier."""
    lines = ["| attack | D | G | B | U | no engine matters |", "|---|---|---|---|---|---|"]
    for number, tests in by_attack(collected).items():
        if tests:
            counts = [sum(tier in each.tiers for each in tests.values()) for tier in "DGBU"]
            counts.append(sum(not each.tiers for each in tests.values()))
            shown = [str(count or "") for count in counts]
            lines.append(f"| {number} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def shown(begin: str, end: str) -> str:
    return PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip()


def test_every_attack_is_made_by_a_test_unless_there_is_nothing_to_attack(collected):
    assert {n for each in collected.values() for n in each.numbers} <= ALL
    missing = {number for number, tests in by_attack(collected).items() if not tests}
    assert missing <= NOT_YET, f"no test makes {sorted(missing - NOT_YET)}"


def test_every_attack_that_an_engine_answers_runs_on_every_tier(collected):
    for number, tests in by_attack(collected).items():
        tiers = {tier for each in tests.values() for tier in each.tiers}
        assert tiers in (set(), set("DGBU")), f"{number} runs only on {sorted(tiers)}"


def test_every_attack_runs_in_make_test_on_every_tier_or_says_why_not(collected):
    rarely = {}
    for number, tests in by_attack(collected).items():
        often = {tier for each in tests.values() for tier in each.often}
        missing = {tier for each in tests.values() for tier in each.tiers} - often
        if missing:
            rarely[number] = "".join(sorted(missing, key="DGBU".index))
    assert rarely == {number: tiers for number, (tiers, _) in IN_MAKE_TEST_ALL.items()}


def test_every_test_of_an_attack_runs_on_every_tier_or_says_why_not(collected):
    partly = {test for test, each in collected.items() if each.tiers not in (set(), set("DGBU"))}
    assert partly == set(PARTLY)


def test_what_runs_again_as_an_ordinary_user_is_there(collected):
    files = {test.partition("::")[0] for test in collected}
    assert {file for files in AGAIN.values() for file in files} <= files


def test_the_page_has_every_attack():
    assert set(catalogue()) == ALL
    assert all(len(what) > 10 for what in catalogue().values())


def test_the_page_names_the_tests_that_make_each_attack_and_where(collected):
    text = list_of_tests(collected)
    assert shown(BEGIN, END) == text.strip(), f"docs/isolation-attacks.md should say:\n{text}"


def test_the_page_counts_the_tests_on_each_tier(collected):
    text = table_of_tiers(collected)
    assert shown(TIERS_BEGIN, TIERS_END) == text.strip(), f"the page should say:\n{text}"


def test_the_numbers_of_the_doctors_attacks_are_in_the_catalogue():
    path: Path = ROOT / "jupyter_sandbox" / "cli" / "probe_inside.py"
    numbers = set(re.findall(r'attack\(\s*"(T\d\d)"', path.read_text(encoding="utf-8")))
    assert len(numbers) > 8
    assert numbers <= ALL
