"""Whether /proc shows command lines to other users, as its mount options say."""

from pathlib import Path

import pytest

from jupyter_sandbox.cli.visible_processes import are_command_lines_shown

PROC = "none /sys sysfs rw 0 0\nproc /proc proc {} 0 0\nnone /proc/sys/fs autofs rw 0 0\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("rw,nosuid", True),
        ("rw,hidepid=0", True),
        ("rw,hidepid=off", True),
        ("rw,hidepid=1", False),
        ("rw,hidepid=invisible,gid=4", False),
    ],
)
def test_the_option_decides(tmp_path: Path, options: str, shown: bool):
    mounts = tmp_path / "mounts"
    mounts.write_text(PROC.format(options))
    assert are_command_lines_shown(mounts) is shown


def test_the_mount_on_top_decides(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(PROC.format("rw") + PROC.format("rw,hidepid=2"))
    assert not are_command_lines_shown(mounts)


def test_what_cannot_be_read_is_taken_for_shown(tmp_path: Path):
    assert are_command_lines_shown(tmp_path / "nothing")
