"""The limit of open files: raised for the sandboxes there may be, never lowered."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

RUN = """
import resource, sys
from jupyter_sandbox.sandbox.open_files import raise_open_files
soft, hard, sandboxes = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(raise_open_files(sandboxes), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "sandboxes", "fits", "soft_after"),
    [
        (512, 8192, 100, 100, 1024 + 3200),
        (512, 8192, 0, (8192 - 1024) // 32, 8192),
        (512, 2048, 100, 32, 2048),
        (6000, 8192, 100, (6000 - 1024) // 32, 6000),  # never lowered
        (512, 512, 100, 0, 512),
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(soft, hard, sandboxes, fits, soft_after):
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= hard
    words = [sys.executable, "-c", RUN, str(soft), str(hard), str(sandboxes)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert said.split() == [str(fits), str(soft_after), str(hard)]
