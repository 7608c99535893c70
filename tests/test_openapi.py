"""The OpenAPI document: valid, whole, and what the server does (schemathesis asks it)."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from jupyter_sandbox.routes import ROUTES
from jupyter_sandbox.routes.openapi.handler import document

METHODS = ("get", "head", "post", "put", "patch", "delete")


UNTRIED = {
    "deleteConversation": "the others need it",
    "putPolicy": "it would switch the feature off",
    # OpenAPI escapes the slashes of a path; Jupyter's contents routes do not take them so.
    **dict.fromkeys(["listCheckpoints", "makeCheckpoint", "restoreCheckpoint"], "slashes"),
    "kernelChannels": "a websocket",
    **dict.fromkeys(["deleteCheckpoint", "downloadContents", "headContents"], "slashes"),
}
"""Operations that schemathesis leaves alone, and why; each has tests of its own."""


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """The document is the same for each engine: one shows it."""
    return request.param


def test_it_is_a_valid_document():
    OpenAPIV31SpecValidator(document()).validate()


def test_it_has_every_route_and_method_and_no_other():
    real = set()
    for pattern, handler in ROUTES:
        path = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern).replace("\\.", ".")
        real |= {(path, method) for method in METHODS if method in vars(handler)}
    said = {
        (path, method)
        for path, item in document()["paths"].items()
        for method in item
        if method in METHODS
    }
    assert said == real


def test_every_operation_has_a_name_of_its_own_and_a_summary():
    operations = [
        operation
        for item in document()["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"].endswith(".") for operation in operations)


async def test_the_server_gives_it_with_its_address(api, jp_serverapp):
    status, given = await api.json("GET", "openapi.json")
    assert status == 200
    assert given["servers"] == [{"url": jp_serverapp.base_url.rstrip("/")}]
    assert given["paths"].keys() == document()["paths"].keys()


async def test_schemathesis_finds_no_failure_and_no_violation(api, jp_serverapp, tmp_path):
    """Bounded: a fixed seed and few examples an operation; what it makes up is hostile enough."""
    conversation = await api.conversation(title="for schemathesis")
    await api.bash(conversation, "echo x > /mnt/user-data/outputs/a.txt")
    await api.call(conversation, "share_files", paths=["/mnt/user-data/outputs/a.txt"])
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f"""
[parameters]
conversation_id = "{conversation}"

[[operations]]
include-tag = "jupyter"
parameters = {{ path = "" }}
"""
    )
    url = f"http://127.0.0.1:{jp_serverapp.port}{jp_serverapp.base_url}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(config)),
        *("run", f"{url}sandbox/api/openapi.json"),
        *("--url", url),
        *("--header", f"Authorization: token {jp_serverapp.identity_provider.token}"),
        *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
        *("--checks", "response_schema_conformance,response_headers_conformance"),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", "10", "--seed", "1", "--workers", "1"),
        *(word for name in UNTRIED for word in ("--exclude-operation-id", name)),
        *("--request-timeout", "60"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 170)
    assert process.returncode == 0, out.decode("utf-8", "replace")[-8000:]
