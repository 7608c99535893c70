"""A command and a cell that take long, while client, server and browser go away and come back.

``python -m tests.long_running ENGINE SECONDS`` does it by hand and tells what it sees, with times;
the tests do the same in seconds. The server is stopped once, and killed twice; at the second time
it stays away for a while. Everything is fetched at the end by its id, by a new client and browser.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jupyter_sandbox.client import Result
from tests.server_process import ServerProcess

_CODE = """
import time
total = 0
for i in range({seconds}):
    total += i
    print('cell', i, flush=True)
    time.sleep(1)
total + kept
"""


@dataclass(frozen=True)
class Seen:
    """What came of it."""

    command: Result
    cell: Result
    kept: str
    in_browser: str
    away_seconds: float


def run(
    server: ServerProcess,
    seconds: int,
    browse: Callable[[str, str, str], str],
    tell: Callable[[str], None] = lambda line: None,
) -> Seen:
    """Do it; ``browse`` gives the state of a call as a new browser shows it (url, token, path)."""
    server.start()
    with server.client() as client:
        conversation = client.conversation(key="long")
        first = conversation.call("python", {"code": "kept = 1_000_000"})
        assert not first.is_error, first.text
        command = conversation.start(
            "bash",
            {
                "command": f"for i in $(seq {seconds}); do echo line $i; sleep 1; done; exit 7",
                "timeout_seconds": seconds + 600,
            },
        )
        cell = conversation.start(
            "python", {"code": _CODE.format(seconds=seconds), "timeout_seconds": seconds + 600}
        )
        path = f"sandbox/api/conversations/{conversation.id}/calls/{command}"
    begun = time.monotonic()
    tell(
        f"begun: command {command}, cell {cell}; browser: {browse(server.url, server.token, path)}"
    )

    def until(part: float) -> None:
        time.sleep(max(0.0, begun + seconds * part - time.monotonic()))

    away = 0.0
    for part, end, pause in (
        (0.25, server.stop, 0.0),
        (0.5, server.kill, 0.0),
        (0.75, server.kill, seconds * 0.05),
    ):
        until(part)
        gone = time.monotonic()
        end()
        time.sleep(pause)
        server.start()
        away += time.monotonic() - gone
        with server.client() as client:
            states = [client.existing(conversation.id).fetch(c)["state"] for c in (command, cell)]
        tell(
            f"{end.__name__} at {gone - begun:.0f} s, away for {time.monotonic() - gone:.1f} s; "
            f"then: {states}; a new browser shows: {browse(server.url, server.token, path)}"
        )
    with server.client() as client:
        again = client.existing(conversation.id)
        results = [again.wait(call) for call in (command, cell)]
        kept = again.call("python", {"code": "kept"}).text
    for result in results:
        tell(f"over after {time.monotonic() - begun:.0f} s: {result.tool} {result.state}")
    return Seen(*results, kept, browse(server.url, server.token, path), away)


def check(seen: Seen, seconds: int) -> None:
    """Fail unless nothing is missing."""
    lines = "".join(f"line {i}\n" for i in range(1, seconds + 1))
    cells = "".join(f"cell {i}\n" for i in range(seconds))
    assert seen.command.state == seen.cell.state == "finished"
    assert lines in seen.command.text
    assert seen.command.exit_code == 7
    assert seen.command.duration_seconds >= seconds
    assert f"{cells}{sum(range(seconds)) + 1_000_000}\n" in seen.cell.text, seen.cell.text[-500:]
    assert not seen.cell.is_error
    assert seen.kept.startswith("1000000")
    assert seen.in_browser == "finished"


def browse(url: str, token: str, path: str) -> str:
    """Open JupyterLab in a new Chromium and give the state of the call, asked from its page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        try:
            page = chromium.new_page()
            page.goto(f"{url}/lab?token={token}", timeout=120_000)
            page.wait_for_selector("#jp-main-dock-panel", timeout=120_000)
            script = f"async () => (await (await fetch('/{path}')).json()).state"
            return str(page.evaluate(script))
        finally:
            chromium.close()


def main() -> None:
    """See the module."""
    engine, seconds = sys.argv[1], int(sys.argv[2])
    base = Path(tempfile.mkdtemp(prefix="jsl", dir="/tmp")) / "s"
    limit = f"--SandboxLimits.command_seconds={seconds + 900}"
    server = ServerProcess(base, engine, limit)

    def tell(line: str) -> None:
        print(time.strftime("%H:%M:%S", time.gmtime()), engine, line, flush=True)

    try:
        seen = run(server, seconds, browse, tell)
        tell(f"command: {seen.command.text[:200]!r} ... {seen.command.text[-100:]!r}")
        tell(f"cell: {seen.cell.text[:200]!r} ... {seen.cell.text[-100:]!r}")
        tell(f"kept: {seen.kept!r}; the server was away for {seen.away_seconds:.1f} s in all")
        check(seen, seconds)
        tell("nothing is missing")
    finally:
        server.close()


if __name__ == "__main__":
    main()
