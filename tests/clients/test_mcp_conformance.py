"""The protocol's own conformance runner, in its scenarios for servers."""

from __future__ import annotations

import re
import subprocess
from urllib.parse import urlsplit

from .forwarding import adding_token
from .node_packages import installed

# The newest that runs on Node.js 20 (Debian's); it speaks the eras with a handshake.
RUNNER = "@modelcontextprotocol/conformance@0.1.13"

APPLY = {
    "server-initialize",
    "ping",
    "tools-list",
    "server-sse-polling",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
}
# These call tools, resources and prompts of the runner's own names, which a server for its tests
# has (``test_simple_text``, ``test://static-text``): no other server can pass them. The shapes of
# our own tools' answers are checked with the official SDK in test_mcp.py.
ITS_OWN_TOOLS = {
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-error",
    "tools-call-with-progress",
    "json-schema-2020-12",
}
# Capabilities that we do not declare: the sandbox has tools and nothing else.
NOT_OFFERED = {
    "logging-set-level",
    "completion-complete",
    "tools-call-with-logging",
    "tools-call-sampling",
    "tools-call-elicitation",
    "elicitation-sep1034-defaults",
    "elicitation-sep1330-enums",
    "resources-list",
    "resources-read-text",
    "resources-read-binary",
    "resources-templates-read",
    "resources-subscribe",
    "resources-unsubscribe",
    "prompts-list",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-embedded-resource",
    "prompts-get-with-image",
}


def test_the_conformance_runner_passes_every_scenario_that_applies(sandbox_server):
    program = installed(RUNNER) / "@modelcontextprotocol/conformance/dist/index.js"
    port = urlsplit(sandbox_server.url).port
    with adding_token(port, sandbox_server.token) as forwarded:
        url = f"http://127.0.0.1:{forwarded}/sandbox/mcp"
        done = subprocess.run(
            ["node", str(program), "server", "--url", url, "--suite", "all"],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    said = re.findall(r"^(\S) ([a-z0-9-]+): (\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    assert {name for _, name, _, _ in said} == APPLY | ITS_OWN_TOOLS | NOT_OFFERED, done.stdout
    failed = {name for _, name, _, failures in said if int(failures)}
    assert failed & APPLY == set(), done.stdout[-6000:]
    # a scenario that came to pass belongs to those that apply
    assert failed == ITS_OWN_TOOLS | NOT_OFFERED
