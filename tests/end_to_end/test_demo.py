"""The demo, as ``make demo`` runs it: the main job on real data, on every engine."""

from __future__ import annotations

import subprocess
import sys
import zipfile


def test_the_demo_makes_a_chart_and_a_workbook_from_real_data(engine_name, short_dir):
    output = short_dir / "output"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jupyter_sandbox.cli.app", "demo"),
            *(f"--engine={engine_name}", f"--output={output}"),
        ],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (output / "rain.png").read_bytes().startswith(b"\x89PNG")
    assert "xl/workbook.xml" in zipfile.ZipFile(output / "seattle-monthly.xlsx").namelist()
    assert "wettest month: 2015-12 with 284.5 mm" in done.stdout
    assert "New sandbox" in done.stdout


def test_a_demo_that_fails_says_where_and_exits_with_1(short_dir, engine_name, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jupyter_sandbox.cli.app", "demo", "--engine=docker"),
            f"--output={short_dir / 'output'}",
        ],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 1
    assert "the demo failed: expected create_file to succeed" in done.stderr
    assert "exec failed: " in done.stdout
