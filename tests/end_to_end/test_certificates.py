"""A site's own certificate authority reaches every client inside.

The server that it has signed for runs in the sandbox itself, so nothing has to leave it. Each client
is asked with the authority and without: one that would trust anything proves nothing.
"""

from __future__ import annotations

import shutil

import pytest

from jupyter_sandbox.cli.server_settings import configured_extension
from tests.authority import make_authority
from tests.conftest import text_of

pytestmark = pytest.mark.timeout(120)

URL = "https://localhost:8443"
SERVER = """
import http.server, ssl
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/workspace/server.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
GO = """package main
import ("fmt"; "net/http"; "os")
func main() {
  answer, err := http.Get(os.Args[1])
  if err != nil { fmt.Println(err); os.Exit(1) }
  fmt.Println(answer.Status)
}
"""
NODE = """
require("https").get(process.argv[2], () => process.exit(0)).on("error", () => process.exit(1))
"""
# client: (program that must be there, command). All end with 0 if and only if they trust it.
CLIENTS = {
    "curl": ("curl", f"curl -sSf {URL}/hello"),
    "wget": ("wget", f"wget -nv -O- {URL}/hello"),
    "python": ("python3", f"python3 -c 'import urllib.request as u; u.urlopen(\"{URL}/hello\")'"),
    "requests": ("python3", f"python3 -c 'import requests; requests.get(\"{URL}/hello\")'"),
    "pip": ("pip", f"pip download -q --no-deps -d /tmp/pip --index-url {URL}/simple hello"),
    "git": ("git", f"git ls-remote {URL}/repo.git"),
    "node": ("node", f"node /workspace/client.js {URL}/hello"),
    "npm": ("npm", f"npm view hello version --cache $(mktemp -d) --registry {URL}/npm/"),
    "go": ("go", f"cd /workspace && go run client.go {URL}/hello"),
    "apt": (
        "apt-helper",
        f"/usr/lib/apt/apt-helper download-file {URL}/hello /tmp/apt-hello-$RANDOM",
    ),
}
PREPARE = """
mkdir -p site/simple/hello site/npm && cd site && echo hello > hello
git init -q --bare repo.git && git -C repo.git update-server-info
python3 - <<'END'
import zipfile
name = "hello-1.0-py3-none-any.whl"
with zipfile.ZipFile("simple/hello/" + name, "w") as wheel:
    wheel.writestr("hello-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: hello\\nVersion: 1.0\\n")
    wheel.writestr("hello-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
    wheel.writestr("hello-1.0.dist-info/RECORD", "")
open("simple/hello/index.html", "w").write('<a href="%s">%s</a>' % (name, name))
open("npm/hello", "w").write('{"name":"hello","dist-tags":{"latest":"1.0.0"},"versions":'
    '{"1.0.0":{"name":"hello","version":"1.0.0","dist":{"tarball":"x"}}}}')
END
python3 ../server.py > /tmp/server.log 2>&1 &
until grep -q : /proc/net/tcp && (exec 3<>/dev/tcp/127.0.0.1/8443) 2>/dev/null; do sleep 0.05; done
"""
WITHOUT = (
    "env -u SSL_CERT_FILE -u REQUESTS_CA_BUNDLE -u PIP_CERT -u CURL_CA_BUNDLE -u GIT_SSL_CAINFO"
)
WITHOUT += " -u NODE_EXTRA_CA_CERTS -u NPM_CONFIG_CAFILE -u SYSTEM_WGETRC -u APT_CONFIG bash -c "


@pytest.fixture(scope="module")
def authority():
    return make_authority()


@pytest.fixture
def sandbox_config(authority, short_dir):
    bundle = short_dir / "company.pem"
    bundle.write_text("Company root\n" + authority.certificate)
    return {"SandboxApp": {"extra_ca_bundle": str(bundle)}, "SandboxEgress": {"presets": []}}


async def test_every_client_inside_trusts_the_sites_authority(api, authority, engine_name):
    conversation = await api.conversation()
    files = {
        "server.pem": authority.server_certificate + authority.server_key,
        "server.py": SERVER,
        "client.go": GO,
        "client.js": NODE,
    }
    for name, text in files.items():
        await api.call(conversation, "create_file", path=f"/workspace/{name}", file_text=text)
    assert "[exit code 0" in await api.bash(conversation, PREPARE)
    checked = []
    for client, (program, command) in CLIENTS.items():
        if engine_name == "bubblewrap" and (client == "apt" or shutil.which(program) is None):
            continue  # it has what this host has; apt cannot install there
        trusted = await api.call(conversation, "bash", command=command, timeout_seconds=100)
        assert trusted["exit_code"] == 0, f"{client}: {text_of(trusted)}"
        quoted = command.replace("'", "'\\''")
        refused = await api.call(conversation, "bash", command=f"{WITHOUT}'{quoted}'")
        assert refused["exit_code"] != 0, f"{client}: {text_of(refused)}"
        checked.append(client)
    assert {"curl", "python", "pip", "git"} <= set(checked)
    if engine_name == "docker":
        assert set(checked) == set(CLIENTS)


async def test_the_public_authorities_are_trusted_besides_and_nothing_can_be_written(api):
    conversation = await api.conversation()
    shown = await api.bash(
        conversation,
        'grep -c "BEGIN CERT" $SSL_CERT_FILE; ls -l $SSL_CERT_FILE; '
        "echo x >> $SSL_CERT_FILE; echo x > $APT_CONFIG",
    )
    count = int(next(line for line in shown.split("\n") if line.isdigit()))
    assert count > 100
    assert shown.count("Read-only file system") + shown.count("Permission denied") == 2


@pytest.mark.parametrize("engine_name", ["bubblewrap"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read: No such file"),
        ("hello", "holds no PEM certificate"),
        ("-----BEGIN PRIVATE KEY-----\n", "holds a private key"),
    ],
)
def test_a_bundle_that_cannot_be_right_stops_the_start(short_dir, engine_name, text, why):
    bundle = short_dir / "bundle.pem"
    if text is not None:
        bundle.write_text(text)
    app = configured_extension([f"--SandboxApp.extra_ca_bundle={bundle}"])
    (problem,) = app.find_wrong_settings()
    assert f"SandboxApp.extra_ca_bundle: {bundle} {why}" in problem
