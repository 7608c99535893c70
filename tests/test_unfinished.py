"""What is made under a temporary name is not taken from its maker, and is found when that died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from jupyter_sandbox.stores.unfinished import making_directory, making_file, remove_unfinished
from jupyter_sandbox.stores.whole_file import make_text, replace_text

_MAKER = """
import pathlib, sys, time
from jupyter_sandbox.stores.unfinished import making_directory, making_file
root = pathlib.Path(sys.argv[1])
with making_file(root / "a"), making_directory(root / "b") as directory:
    (directory / "file").write_text("half")
    print("made", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_maker_has_left_is_removed_and_nothing_else(tmp_path):
    for name in (".ssh", ".a", ".a.b", ".c.0123456789abcdef", "a.0123456789abcdef", "a"):
        (tmp_path / name).touch()
    there = set(os.listdir(tmp_path))
    maker = subprocess.Popen(
        [sys.executable, "-c", _MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "made\n"
    assert len(set(os.listdir(tmp_path)) - there) == 2
    assert remove_unfinished(tmp_path, "a", "b*") == 0  # its maker lives
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    assert remove_unfinished(tmp_path, "a", "b*") == 2
    assert set(os.listdir(tmp_path)) == there


def test_a_directory_that_is_missing_has_nothing_unfinished(tmp_path):
    assert remove_unfinished(tmp_path / "none", "a") == 0


def test_a_link_under_a_temporary_name_is_left_alone(tmp_path):
    (tmp_path / "precious").touch()
    (tmp_path / ".a.0123456789abcdef").symlink_to(tmp_path / "precious")
    assert remove_unfinished(tmp_path, "a") == 0
    assert (tmp_path / "precious").exists()


def test_what_is_renamed_stays_and_what_is_not_goes(tmp_path):
    with making_directory(tmp_path / "kept") as directory:
        (directory / "file").write_text("whole")
        directory.rename(tmp_path / "kept")
    with making_directory(tmp_path / "dropped"), making_file(tmp_path / "dropped too"):
        pass
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").read_text() == "whole"


def test_of_two_makers_of_a_text_the_first_one_stays(tmp_path):
    make_text(tmp_path / "id", "first")
    make_text(tmp_path / "id", "second")
    assert (tmp_path / "id").read_text() == "first"
    assert (tmp_path / "id").stat().st_mode & 0o777 == 0o600
    replace_text(tmp_path / "id", "third")
    assert (tmp_path / "id").read_text() == "third"
    assert os.listdir(tmp_path) == ["id"]
