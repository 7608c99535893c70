"""An open notebook goes on with its variables when the server is killed and started again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.live_server import LiveServer

from .lab import Lab

BUILT = Path(__file__).parents[2] / "jupyter_sandbox/labextension"


@pytest.fixture(scope="module")
def server_command():
    return ("-m", "jupyter", "lab")


@pytest.fixture(scope="module")
def server_settings(tmp_path_factory):
    assert (BUILT / "package.json").exists(), "run `make labextension` first"
    directory = tmp_path_factory.mktemp("labextensions")
    (directory / "jupyter-sandbox").symlink_to(BUILT)
    return (
        f"--LabApp.extra_labextensions_path={directory}",
        # What others on this machine need of its memory suspends nothing here.
        "--SandboxLifecycle.memory_low_bytes=1",
        "--SandboxLifecycle.memory_stalled_percent=0",
    )


@pytest.fixture
def lab(page, live_server):
    page.request.put(
        f"{live_server.url}lab/api/settings/@jupyterlab/apputils-extension:notification",
        data=json.dumps({"raw": '{"fetchNews": "false"}'}),
        headers={"Authorization": f"token {live_server.token}"},
    )
    page.set_default_timeout(60_000)
    return Lab(page, live_server.url)


def expect_sandbox_kernel(lab: Lab) -> None:
    expect(lab.shown(".jp-KernelName")).to_have_text("Python (sandbox)")
    expect(lab.shown(".jp-Notebook-ExecutionIndicator")).to_have_attribute(
        "data-status", "idle", timeout=90_000
    )


def run(page: Page, lab: Lab, nth: int, code: str) -> None:
    """Write code into a cell and run it; a new cell is below it then."""
    lab.shown(".jp-CodeCell .cm-content").nth(nth).click()
    page.keyboard.type(code)
    page.keyboard.press("Shift+Enter")


def expect_output(lab: Lab, nth: int, text: str) -> None:
    output = lab.shown(".jp-CodeCell").nth(nth).locator(".jp-OutputArea-output")
    expect(output).to_contain_text(text, timeout=90_000)


def close_the_news_for_good(lab: Lab) -> None:
    """Close JupyterLab's own dialog, which opens after its next poll and again after others."""
    expect(lab.dialog()).to_contain_text("Server Connection Error")
    lab.dialog().get_by_role("checkbox").check()
    lab.dismiss()


def start_again(page: Page, live_server: LiveServer) -> None:
    """Start the server, while the page goes on with its attempts."""
    starting = threading.Thread(target=live_server.start_again)
    starting.start()
    while starting.is_alive():
        page.wait_for_timeout(50)


@pytest.mark.timeout(400)
def test_an_open_notebook_goes_on_with_its_variables_after_kill_9_and_restart(
    lab, live_server, page, screenshot
):
    conversation = live_server.conversation("Goes on")
    lab.open()
    lab.show("Goes on", "uploads")
    lab.panel.get_by_title("New notebook, with the kernel of this sandbox").first.click()
    expect_sandbox_kernel(lab)
    run(page, lab, 0, "kept = 6 * 7; print('set', kept)")
    expect_output(lab, 0, "set 42")
    before = page.request.get(f"{live_server.url}sandbox/c/{conversation}/api/kernels").json()

    asked: list[str] = []
    page.on("requestfailed", lambda request: asked.append(request.url))
    live_server.kill()
    expect(lab.shown(".jp-Notebook-ExecutionIndicator")).to_have_attribute(
        "data-status", "connecting"
    )
    close_the_news_for_good(lab)
    run(page, lab, 1, "print('asked while it was away', kept)")
    screenshot(page, "restart-1-killed")
    # JupyterLab by itself would ask for the fourth time after half a minute or more.
    lab.until(lambda: sum(f"api/kernels/{before[0]['id']}?" in url for url in asked) > 3)
    start_again(page, live_server)
    expect_output(lab, 1, "asked while it was away 42")
    expect_sandbox_kernel(lab)
    screenshot(page, "restart-2-connected")

    run(page, lab, 2, "print('kept', kept + 1)")
    expect_output(lab, 2, "kept 43")
    screenshot(page, "restart-3-goes-on")
    after = page.request.get(f"{live_server.url}sandbox/c/{conversation}/api/kernels").json()
    assert [each["id"] for each in after] == [each["id"] for each in before]
    sessions = page.request.get(f"{live_server.url}sandbox/c/{conversation}/api/sessions").json()
    assert [session["name"] for session in sessions] == ["Untitled.ipynb"]
    page.keyboard.press("Control+s")  # documents are saved too
    expect(lab.shown(".jp-mod-dirty")).to_have_count(0)


@pytest.mark.timeout(400)
def test_a_cell_that_runs_meanwhile_goes_on_and_its_further_output_is_shown(
    lab, live_server, page, screenshot
):
    conversation = live_server.conversation("Runs on")
    lab.open()
    lab.show("Runs on", "uploads")
    lab.panel.get_by_title("New notebook, with the kernel of this sandbox").first.click()
    expect_sandbox_kernel(lab)
    run(page, lab, 0, "import os, time; print('before', flush=True)")
    expect_output(lab, 0, "before")
    run(page, lab, 1, "while not os.path.exists('/tmp/go'): time.sleep(0.1)")
    indicator = lab.shown(".jp-Notebook-ExecutionIndicator")
    expect(indicator).to_have_attribute("data-status", "busy")
    run(page, lab, 2, "print('after', flush=True)")  # behind it in the kernel's queue

    live_server.kill()
    expect(indicator).to_have_attribute("data-status", "connecting")
    close_the_news_for_good(lab)
    start_again(page, live_server)
    expect(indicator).to_have_attribute("data-status", "busy", timeout=90_000)
    live_server.call(conversation, "bash", command="touch /tmp/go")
    expect_output(lab, 2, "after")
    expect(indicator).to_have_attribute("data-status", "idle")
    run(page, lab, 3, "print('next')")
    expect_output(lab, 3, "next")
    screenshot(page, "restart-4-ran-on")
