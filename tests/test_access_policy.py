"""Flags and grants: who has access, what text is right, and what a wrong one changes: nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.conversations.access_file import AccessFile
from jupyter_sandbox.models import Caller
from jupyter_sandbox.policy.access import AccessPolicy, decide_chat_access, decide_feature
from jupyter_sandbox.policy.access_text import PolicyTextError, parse_policy, with_flag

ALICE = Caller("alice", frozenset({"staff"}))


def grant(enable: bool, **src: list[str]) -> dict:
    return {"src": src, "enable_chat_ui": enable}


def allowed(*grants: dict, caller: Caller = ALICE) -> bool:
    policy = parse_policy(json.dumps({"grants": list(grants)}))
    return decide_chat_access(policy, caller).allowed


@pytest.mark.parametrize(
    ("grants", "has_access"),
    [
        ([], True),
        ([grant(True, users=["alice"])], True),
        ([grant(True, users=["bob"])], False),
        ([grant(True, groups=["staff"])], True),
        ([grant(True, groups=["alice"])], False),
        ([grant(True, users=["staff"])], False),
        ([grant(False, users=["alice"])], False),
        ([grant(False, users=["bob"])], True),
        ([grant(True, users=["alice"]), grant(False, groups=["staff"])], False),
        ([grant(False, groups=["staff"]), grant(True, users=["alice"])], False),
        ([grant(True, users=["alice"]), grant(False, groups=["other"])], True),
        ([grant(True, users=["bob"]), grant(False, users=["carol"])], False),
        ([grant(True, users=["bob"], groups=["staff"])], True),
        ([grant(True, users=["Alice"])], False),
        ([grant(True, users=[], groups=[])], False),
    ],
)
def test_a_grant_that_takes_wins_and_one_that_gives_is_needed_once_there_is_one(grants, has_access):
    assert allowed(*grants) is has_access


@given(
    st.lists(
        st.tuples(st.booleans(), st.sets(st.sampled_from(["alice", "bob"])), st.booleans()),
        max_size=5,
    )
)
def test_an_explicit_false_wins_whatever_stands_around_it(rows):
    grants = [
        grant(enable, users=sorted(users), groups=["staff"] if staff else [])
        for enable, users, staff in rows
    ]
    taken = grant(False, users=["alice"])
    assert not allowed(*grants, taken)
    assert not allowed(taken, *grants)


def test_the_feature_is_on_unless_it_is_switched_off():
    assert decide_feature(parse_policy(""))
    assert decide_feature(parse_policy("{}"))
    off = parse_policy('{"flags": {"chat_sandbox": {"value": false}}}')
    assert "switched off" in decide_feature(off).reason


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("{", 1, "not JSON"),
        ('{\n "flags": }', 2, "not JSON"),
        ("[]", 1, "object"),
        ('{\n "flag": {}\n}', 1, "'flag' was unexpected; known: flags, grants"),
        ('{\n "flags": {\n  "chat_sandbox": {\n   "value": 1}}}', 4, "boolean"),
        ('{"flags": {"chat_sandbox": {}}}', 1, "value"),
        ('{"grants": [\n {"src": {}, "enable_chat_ui": true}]}', 2, "non-empty"),
        ('{"grants": [\n {"src": {"users": ["a"]}}]}', 2, "enable_chat_ui"),
        ('{"grants": [\n {"src": {"users": "a"}, "enable_chat_ui": true}]}', 2, "array"),
        ('{"grants": [\n {"src": {"user": ["a"]}, "enable_chat_ui": true}]}', 2, "'user'"),
        ('{"flags": {},\n "flags": {}}', 2, "twice"),
        ("[" * 100_000, 1, ""),
        ('{"grants": ' + "[" * 100_000, 1, ""),
    ],
)
def test_a_text_that_is_not_right_is_refused_with_line_and_reason(text, line, part):
    with pytest.raises(PolicyTextError) as caught:
        parse_policy(text)
    assert caught.value.line == line
    assert part in caught.value.reason


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(PolicyTextError):
        assert isinstance(parse_policy(text), AccessPolicy)


def test_switching_keeps_the_rest():
    text = '{"grants": [{"src": {"users": ["\u00e9"]}, "enable_chat_ui": true}]}'
    off = with_flag(text, False)
    assert not parse_policy(off).chat_sandbox
    assert parse_policy(off).grants == parse_policy(text).grants
    assert parse_policy(with_flag(off, True)).chat_sandbox
    with pytest.raises(PolicyTextError):
        with_flag("{", True)


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def watched(tmp_path):
    log = logging.Logger("access")
    recorder = Recorder()
    log.addHandler(recorder)
    return AccessFile(tmp_path / "policy.json", log), recorder.lines


def test_a_change_of_the_file_counts_at_the_next_look(watched):
    file, _ = watched
    assert file.current() == AccessPolicy()
    file.path.write_text('{"flags": {"chat_sandbox": {"value": false}}}')
    assert not file.current().chat_sandbox
    file.path.write_text("{}")
    assert file.current().chat_sandbox


def test_a_wrong_text_changes_nothing_and_the_log_says_where(watched):
    file, lines = watched
    file.replace('{"flags": {"chat_sandbox": {"value": false}}}')
    assert not file.current().chat_sandbox
    file.path.write_text('{\n "flags": 1}')
    assert not file.current().chat_sandbox
    assert file.problem is not None
    assert file.problem.line == 2
    assert "line 2" in lines[-1]
    assert "stays in force" in lines[-1]
    with pytest.raises(PolicyTextError):
        file.replace("{")
    file.replace("{}")
    assert file.current().chat_sandbox
    assert file.problem is None


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_a_wrong_file_at_the_start_gives_access_to_nobody(watched, content):
    file, lines = watched
    file.path.write_bytes(content)
    assert not file.current().chat_sandbox
    assert "nobody has access" in lines[-1]


def test_a_directory_in_the_files_place_gives_access_to_nobody(watched):
    file, _ = watched
    file.path.mkdir()
    assert not file.current().chat_sandbox


def test_the_file_is_for_its_owner_only(watched):
    file, _ = watched
    file.replace("{}")
    assert os.stat(file.path).st_mode & 0o077 == 0
    assert [p.name for p in file.path.parent.iterdir()] == ["policy.json"]


def run(*words: str, data_dir) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jupyter_sandbox.cli.app", *words, f"--data-dir={data_dir}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_switches_and_checks(tmp_path):
    file = tmp_path / "policy.json"
    off = run("disable", data_dir=tmp_path)
    assert (off.returncode, "off" in off.stdout) == (0, True)
    assert not parse_policy(file.read_text()).chat_sandbox
    assert run("enable", data_dir=tmp_path).returncode == 0
    assert parse_policy(file.read_text()).chat_sandbox
    right = run("policy", "check", data_dir=tmp_path)
    assert (right.returncode, "chat_sandbox is on, 0 grants" in right.stdout) == (0, True)
    file.write_text('{\n"flags": 1}')
    for words in (("policy", "check"), ("enable",), ("policy", "check", str(file))):
        wrong = run(*words, data_dir=tmp_path)
        assert wrong.returncode == 1
        assert "line 2: flags" in wrong.stderr
    assert file.read_text() == '{\n"flags": 1}'
    missing = run("policy", "check", str(tmp_path / "nothing"), data_dir=tmp_path)
    assert (missing.returncode, "no such file" in missing.stderr) == (1, True)
