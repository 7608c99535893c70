"""What a sandbox finds where others have a network: refusals in plain words, at once, and a proxy
that survives what happens around it."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from tests.attacks import attack
from tests.conftest import on_each_engine, on_gvisor_too, text_of
from tests.faults.table import fault
from tests.local_guest import eventually

REFUSED = "Network access to blocked.example:443 was refused: the host is not on the list"
ALLOWED = "Allowed: https to allowed.example. A retry will not help."
ASK = "curl -sS https://blocked.example/"


@pytest.fixture
def sandbox_config():
    return {"SandboxEgress": {"presets": [], "allow_hosts": ["allowed.example"]}}


@pytest.fixture
def app(jp_serverapp):
    return jp_serverapp.web_app.settings["jupyter_sandbox"]


@on_each_engine
async def test_a_refusal_stands_in_the_result_before_the_status_line(api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    lines = (await api.bash(conversation, ASK)).rstrip("\n").split("\n")
    assert lines[0].startswith("curl: (56) ")
    assert lines[1].startswith(REFUSED)
    assert lines[1].endswith(ALLOWED)
    assert lines[2].startswith("[exit code 56 · ")
    assert len(lines) == 3


async def test_it_reads_the_same_in_the_body_in_the_header_and_in_the_result(api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    shown = await api.bash(conversation, "curl -sSi http://blocked.example/; echo; exit 1")
    head, _, body = shown.replace("\r\n", "\n").partition("\n\n")
    text = REFUSED.replace(":443", ":80")
    assert f"\nx-deny-reason: {text}" in head
    assert body.startswith(text)
    assert body.count(text) == 1  # what the program has shown is not said again
    assert ALLOWED in body


async def test_a_command_that_hides_its_failure_gets_the_reason_too_and_many_are_told_once(api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    shown = await api.bash(conversation, f"for n in 1 2 3 4; do {ASK}; done 2>/dev/null; true")
    assert shown.count(REFUSED) == 1
    assert "[exit code 0 · " in shown


async def test_of_many_refused_hosts_a_few_are_named(api):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    shown = await api.bash(
        conversation, "for n in 1 2 3 4 5; do curl -s https://blocked$n.example/; done"
    )
    assert shown.count("was refused: ") == 3
    assert "[2 more were refused in the same way]" in shown


async def test_a_cell_gets_the_reason(api):
    conversation = await api.conversation()
    code = (
        "import urllib.request\n"
        "try:\n    urllib.request.urlopen('https://blocked.example/')\n"
        "except OSError as exc:\n    print('failed')\n"
    )
    shown = await api.text(conversation, "python", code=code)
    assert shown.startswith("[New sandbox")
    assert f"failed\n{REFUSED}" in shown
    assert "\n[ok · " in shown


async def test_refusals_of_one_conversation_are_not_told_to_another(api):
    loud, quiet = await api.conversation(), await api.conversation()
    await asyncio.gather(api.bash(loud, "true"), api.bash(quiet, "true"))
    both = await asyncio.gather(
        api.bash(loud, f"for n in 1 2 3; do {ASK}; done"), api.bash(quiet, "sleep 1; exit 3")
    )
    assert REFUSED in both[0]
    assert "refused" not in both[1]
    assert "refused" not in await api.bash(loud, "echo later")


_TIMING = """
import socket, statistics, time
def ask():
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", 3128), 10) as s:
        s.sendall(b"CONNECT blocked.example:443 HTTP/1.1\\r\\nHost: blocked.example:443\\r\\n\\r\\n")
        assert b" 403 " in s.recv(65536)
    return time.monotonic() - started
ask()
times = sorted(ask() for _ in range(21))
print("median_ms", round(times[10] * 1000, 2), "best_ms", round(times[0] * 1000, 2))
"""


async def test_a_refusal_comes_at_once(api):
    conversation = await api.conversation()
    await api.text(conversation, "create_file", path="/workspace/t.py", file_text=_TIMING)
    shown = await api.bash(conversation, "python3 t.py")
    best = float(shown.split("best_ms ")[1].split()[0])
    assert best < 50, shown


@attack("T06")
@on_gvisor_too
async def test_names_do_not_resolve_inside(api):
    conversation = await api.conversation()
    shown = await api.bash(conversation, "getent hosts allowed.example; echo $?; cat /proc/net/dev")
    assert "\n2\n" in f"\n{shown}"
    interfaces = {line.split(":")[0].strip() for line in shown.split("\n") if ":" in line[:12]}
    assert "lo" in interfaces
    assert not interfaces & {"eth0", "ens3", "wlan0"}


@on_each_engine
async def test_every_program_gets_the_variables(api):
    conversation = await api.conversation()
    shown = await api.bash(conversation, "env; apt-config dump 2>/dev/null | grep ^Acquire::http")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        assert f"\n{name}=http://127.0.0.1:3128\n" in shown
    assert "\nno_proxy=localhost,127.0.0.1,::1\n" in shown
    code = "import os\nprint(os.environ['https_proxy'])"
    assert "http://127.0.0.1:3128" in await api.text(conversation, "python", code=code)


async def test_services_inside_are_reached_without_the_proxy(api):
    conversation = await api.conversation()
    shown = await api.bash(
        conversation,
        "mkdir site && echo here > site/index.html\n"
        "python3 -m http.server 8000 -d site > /tmp/log 2>&1 &\n"
        "until curl -sf http://localhost:8000/; do sleep 0.05; done",
    )
    assert "here\n" in shown


@on_each_engine
async def test_a_killed_forwarder_is_replaced(api):
    conversation = await api.conversation()
    kill = (
        f"{ASK}; for p in /proc/[0-9]*; do "
        "if grep -qx way-out $p/comm; then kill -9 ${p#/proc/} && echo killed; fi; done"
    )
    assert REFUSED in (shown := await api.bash(conversation, kill))
    assert shown.count("killed\n") == 1
    assert REFUSED in await api.bash(conversation, ASK)


@on_each_engine
@fault("egress-killed")
async def test_a_killed_proxy_is_started_again_and_the_sandbox_finds_it(api, app):
    conversation = await api.conversation()
    assert REFUSED in await api.bash(conversation, ASK)
    proxy = (await app.ready()).way_out._proxy
    before = proxy.pid
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: proxy.pid not in (None, before))
    again = f"until {ASK} 2>&1 | tee /tmp/said | grep -q 403; do sleep 0.05; done; cat /tmp/said"
    assert REFUSED in await api.bash(conversation, again, timeout_seconds=20)


async def test_without_a_server_nothing_gets_out_and_the_next_server_opens_the_way_again(api, app):
    conversation = await api.conversation()
    assert REFUSED in await api.bash(conversation, ASK)
    _, call = await api.json(
        "POST",
        *("conversations", conversation, "tools", "bash?wait=0"),
        body={
            "command": "touch /tmp/begun; "
            "until curl -s http://blocked.example/ | grep 'does not answer'; do sleep 0.05; done"
        },
    )
    await api.bash(conversation, "until [ -e /tmp/begun ]; do sleep 0.05; done")
    pid = (await app.ready()).way_out._proxy.pid
    await app.stop_extension()
    assert not os.path.exists(f"/proc/{pid}")
    await asyncio.sleep(1)  # the command inside asks while there is no server

    _, done = await api.json(
        "GET", "conversations", conversation, "calls", f"{call['call_id']}?wait=30"
    )
    assert "The way out of this sandbox does not answer right now" in text_of(done)
    assert REFUSED in await api.bash(conversation, ASK)
    assert (await app.ready()).way_out._proxy.pid != pid


@on_each_engine
async def test_a_removed_sandbox_leaves_no_socket_open(api, app, server_dir):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    sockets = list((server_dir / "run").glob("*/egress/*.sock"))
    assert len(sockets) == 1
    await api.raw("DELETE", "conversations", conversation)
    assert not sockets[0].exists()
    assert repr((await app.ready()).way_out._proxy).endswith("sandboxes=0>")


async def test_the_guidance_names_what_may_be_reached(api, app):
    way_out = (await app.ready()).way_out
    await eventually(lambda: way_out.allowed is not None)
    _, body = await api.json("GET", "tools")
    assert "https to allowed.example" in body["guidance"]


class TestSwitchedOff:
    """No preset and no host."""

    @pytest.fixture
    def sandbox_config(self):
        return {"SandboxEgress": {"presets": []}}

    async def test_everything_says_so(self, api, app):
        conversation = await api.conversation()
        shown = await api.bash(conversation, "curl -si http://blocked.example/; pip download roman")
        assert "HTTP/1.1 403 No network in this sandbox" in shown
        assert "the server's administrator allows no hosts" in shown
        assert "Tunnel connection failed: 403 No network in this sandbox" in shown
        assert (await app.ready()).way_out._proxy is None
        _, body = await api.json("GET", "tools")
        assert "The sandbox has no network" in body["guidance"]

    async def test_a_sandbox_that_a_server_with_hosts_adopts_has_a_way_out(self, api, app):
        conversation = await api.conversation()
        assert "no hosts" in await api.bash(conversation, "curl -s http://blocked.example/")
        await app.stop_extension()
        app._egress.allow_hosts = ["allowed.example"]
        shown = await api.bash(conversation, "true")
        assert "exit code 0" in shown
        assert REFUSED in await api.bash(conversation, ASK)
        await app.stop_extension()
        app._egress.allow_hosts = []
        assert "no hosts" in await api.bash(conversation, "curl -s http://blocked.example/")


async def test_log_lines_say_who_was_refused_what(api, caplog):
    conversation = await api.conversation()
    caplog.set_level("INFO")
    await api.bash(conversation, "true")
    await api.bash(conversation, ASK)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("egress {")]
    facts = [json.loads(line.removeprefix("egress ")) for line in lines]
    assert any(f["conversation"] == conversation and f["verdict"] == "deny" for f in facts)


class TestMirrors:
    """A host whose pip and npm are set to mirrors."""

    @pytest.fixture
    def sandbox_config(self, monkeypatch):
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://mirror.example/npm/")
        return {"SandboxEgress": {"presets": ["pypi", "npm"]}}

    async def test_pip_and_npm_inside_use_them_from_the_first_command_on(self, api):
        conversation = await api.conversation()
        shown = await api.bash(conversation, "echo $PIP_INDEX_URL; echo $NPM_CONFIG_REGISTRY")
        assert "\nhttps://mirror.example/simple\nhttps://mirror.example/npm/\n" in shown
        assert "mirror.example" in await api.bash(conversation, "curl -s http://blocked.example/")


@pytest.mark.parametrize("engine_name", [pytest.param("docker", marks=pytest.mark.docker)])
class TestGvisor:
    """The same under gVisor, whose sandboxes have their own network stack."""

    @pytest.fixture
    def sandbox_config(self):
        return {
            "DockerEngine": {"oci_runtime": "runsc"},
            "SandboxEgress": {"presets": [], "allow_hosts": ["allowed.example"]},
        }

    async def test_a_refusal_comes_with_its_reason_and_a_killed_forwarder_comes_back(self, api):
        conversation = await api.conversation()
        assert REFUSED in await api.bash(conversation, ASK)
        kill = (
            "for p in /proc/[0-9]*; do "
            "if grep -qx way-out $p/comm; then kill -9 ${p#/proc/} && echo killed; fi; done"
        )
        assert "killed\n" in await api.bash(conversation, kill)
        assert REFUSED in await api.bash(conversation, ASK)
