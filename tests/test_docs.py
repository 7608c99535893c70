"""What the documentation says is so: settings, routes, tools, codes, links, commands, examples."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from jupyter_server.utils import url_path_join
from prometheus_client import Counter, Gauge, Histogram
from sandbox_guest.bash import executions as guest_executions
from sandbox_guest.output import KEPT_SPOOLS

from jupyter_sandbox import metrics
from jupyter_sandbox.app import SandboxApp
from jupyter_sandbox.cli.app import SandboxCLI
from jupyter_sandbox.conversations.states import State
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.models import CallState, FileCard, Limits
from jupyter_sandbox.routes import ROUTES
from jupyter_sandbox.settings import (
    SandboxEgress,
    SandboxLifecycle,
    SandboxLimits,
    SandboxPreviews,
    SandboxResources,
)
from jupyter_sandbox.tools.registry import FORMATS, TOOLS
from tests.test_layering import MAY_IMPORT

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
CONFIGURABLES = (
    SandboxApp,
    SandboxLimits,
    SandboxLifecycle,
    SandboxResources,
    SandboxPreviews,
    SandboxEgress,
    DockerEngine,
    BubblewrapEngine,
)

ASSISTANTS = (DOCS / "assistants.md").read_text(encoding="utf-8")
ADMINISTRATORS = (DOCS / "administrators.md").read_text(encoding="utf-8")
CONTRIBUTING = (DOCS / "contributing.md").read_text(encoding="utf-8")

BUILT = {"jupyter_sandbox/labextension"}
"""What `make` makes, so that a fresh checkout lacks it."""

# Codes of the guest's file service for operations that no tool asks for (rename, rmdir), and for
# requests that only a broken host would make.
NOT_FOR_ASSISTANTS = {"not_empty", "cross_device", "unknown_op"}


def rows(text: str, heading: str) -> list[list[str]]:
    """Give the rows of the first table after a heading, or under its own first line."""
    after = text.split(f"\n{heading}\n", 1)[1]
    found: list[list[str]] = []
    for line in after.split("\n"):
        if line.startswith("|"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found or line.startswith("#"):
            break
    body = found[1:] if heading.startswith("|") else found[2:]
    assert body, f"no table after {heading!r}"
    return body


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def words(cell: str) -> list[str]:
    """Give what stands between backquotes."""
    return re.findall(r"`([^`]+)`", cell)


# Settings


def settings_table() -> str:
    """Give the table of all settings as administrators.md must have it."""
    lines = ["| setting | default | what |", "|---|---|---|"]
    for cls in CONFIGURABLES:
        traits = cls.class_own_traits(config=True)
        instance = cls()
        for name in (name for name in vars(cls) if name in traits):
            help_text = " ".join(traits[name].help.split()).replace("|", "\\|")
            static = traits[name].default()
            default = f"`{static!r}`"
            if getattr(instance, name) != static:  # it depends on the machine: the help says how
                help_text, _, default = help_text.partition(" Default: ")
                default = default.removesuffix(".")
                assert default, f"the help of {cls.__name__}.{name} does not say the default"
            elif name.endswith("_bytes"):
                default += _size(static)
            lines.append(f"| `{cls.__name__}.{name}` | {default} | {help_text} |")
    return "\n".join(lines)


def _size(value: int) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2)):
        if value >= size and value % size == 0:
            return f" ({value // size} {unit})"
    return ""


def test_the_settings_table_is_what_the_code_has():
    block = re.search(r"<!-- settings: begin.*?-->\n(.*?)<!-- settings: end", ADMINISTRATORS, re.S)
    assert block is not None
    expected = settings_table()
    assert block[1].strip() == expected, f"put this into docs/administrators.md:\n{expected}"


def test_settings_that_pages_name_exist():
    known = {f"{cls.__name__}.{name}" for cls in CONFIGURABLES for name in cls.class_traits()}
    classes = "|".join(cls.__name__ for cls in CONFIGURABLES)
    for page in PAGES:
        named = re.findall(rf"\b(?:{classes})\.[a-z_]+", page.read_text(encoding="utf-8"))
        assert set(named) <= known, page.name


# Metrics


def test_the_metrics_table_is_what_the_code_has():
    expected = []
    for collector in vars(metrics).values():
        if isinstance(collector, Counter | Gauge | Histogram):
            (family,) = collector.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in collector._labelnames)
            what = family.documentation.removesuffix(".")
            expected.append(f"| `{name}` | {family.type} | {labels} | {what} |")
    table = [f"| {' | '.join(row)} |" for row in rows(ADMINISTRATORS, "## Metrics")]
    assert [" ".join(row.split()) for row in table] == [
        " ".join(row.split()) for row in expected
    ], "put this into docs/administrators.md:\n" + "\n".join(expected)


def test_the_label_sets_of_metrics_are_what_the_pages_name():
    assert {words(row[0])[0] for row in rows(ASSISTANTS, "## Codes")} == metrics.CODES
    assert {words(row[1])[0] for row in rows(ASSISTANTS, "## HTTP errors")} <= metrics.REASONS
    assert {tool.name for tool in TOOLS} == metrics.TOOLS


# Routes


def test_the_routes_table_is_what_the_server_has():
    documented = {(words(method)[0], words(path)[0]) for method, path, *_ in _routes()}
    real = set()
    for pattern, handler in ROUTES:
        path = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern).replace("\\.", ".")
        methods = [m for m in ("get", "post", "put", "patch", "delete") if m in vars(handler)]
        real |= {(method.upper(), path) for method in methods}
    assert documented == real


def _routes() -> list[list[str]]:
    return rows(ASSISTANTS, "## Routes")


def test_every_event_and_every_state_is_documented():
    source = (ROOT / "jupyter_sandbox/routes/tools.py").read_text(encoding="utf-8")
    sent = set(re.findall(r'self\._event\("(\w+)"', source))
    assert {words(row[0])[0] for row in rows(ASSISTANTS, "## Output as it comes")} == sent
    for state in State:
        assert f"`{state}`" in ASSISTANTS
    states = {words(row[0])[0] for row in rows(ASSISTANTS, "| `state` | meaning |")}
    assert states == set(get_args(CallState))


# Tools


def test_the_tools_table_is_what_the_schemas_say():
    documented = {
        (words(tool)[0], words(argument)[0]): (kind, required == "yes")
        for tool, argument, kind, required, _ in rows(ASSISTANTS, "## Tools")
    }
    real = {}
    for tool in TOOLS:
        schema: Any = tool.schema(Limits())
        for name, shape in schema["properties"].items():
            if name != "description":  # every tool has it: said above the table
                real[tool.name, name] = (shape["type"], name in schema["required"])
    assert documented == real


def test_the_formats_and_the_members_of_results_are_documented():
    tools_row = next(row for row in _routes() if words(row[1]) == ["/sandbox/api/tools"])
    for name in FORMATS:
        assert name in tools_row[2]
    kinds = {
        row[0]: set(words(row[1])) for row in rows(ASSISTANTS, "| kind of content | members |")
    }
    shared = FileCard("/mnt/user-data/outputs/a", "a", file_id="1").to_json()
    refused = FileCard("/a", "a", error="no", code="outside").to_json()
    assert kinds["`file`, shared"] == {*shared, "url", "preview_url"} - {"type"}
    assert kinds["`file`, not shared"] == set(refused) - {"type"}


def test_the_limits_that_the_pages_name_are_the_defaults():
    limits = Limits()
    for text in (
        f"0.1 to {limits.command_seconds:g}, default {limits.command_seconds:g}",
        f"1 to {limits.share_files} absolute paths",
        f"at most {limits.write_bytes // 1024**2} MiB",
        f"Of more than {limits.output_bytes // 1024**2} MiB",
        f"`view` shows {limits.view_bytes:,} bytes",
        f"{limits.calls_at_once} calls of this conversation run already",
        f"the last {KEPT_SPOOLS} such files",
        f"{guest_executions._MAX_RUNNING} commands run in this sandbox already",
    ):
        assert text in ASSISTANTS


# Codes


def test_every_code_of_a_result_is_documented_and_no_other():
    documented = {words(row[0])[0] for row in rows(ASSISTANTS, "## Codes")}
    rooms = ("errors.py", "policy", "stores", "sandbox", "conversations", "tools")
    only_over_http = {"error", "feature_off", "forbidden", "invalid_request", "misconfigured"}
    in_results = ({*_codes_given(*rooms)} | _guest_codes()) - only_over_http
    assert _guest_codes() >= NOT_FOR_ASSISTANTS
    assert documented == {"ok"} | in_results - NOT_FOR_ASSISTANTS


def test_every_code_of_an_http_error_is_documented_and_no_other():
    documented = {words(row[1])[0] for row in rows(ASSISTANTS, "## HTTP errors")}
    raised = {
        *("invalid_request", "not_found", "limit_exceeded", "unavailable", "forbidden"),
        *("feature_off", "disk_full", "misconfigured"),
    }
    assert documented == set(_codes_given("routes")) | raised
    assert raised <= set(_codes_given("errors.py"))


def _codes_given(*places: str) -> Iterator[str]:
    """Give each constant that the host's source uses as a code, wherever it stands in it."""
    for place in places:
        path = ROOT / "jupyter_sandbox" / place
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                yield from _codes_in(node)


def _codes_in(node: ast.AST) -> Iterator[str]:
    given: list[ast.expr | None] = []
    if isinstance(node, ast.keyword) and node.arg == "code":
        given = [node.value]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(
            isinstance(t, ast.Name) and t.id in ("code", "reason", "_REFUSALS") for t in targets
        ):
            given = [*node.value.values] if isinstance(node.value, ast.Dict) else [node.value]
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name == "answer_error":
            given = [node.args[1]]
        elif name == "get" and getattr(node.func, "value", None) and len(node.args) == 2:
            of = node.func.value  # type: ignore[attr-defined]
            given = [node.args[1]] if isinstance(of, ast.Name) and of.id == "reason" else []
    for expression in given:
        for value in _constants(expression):
            if isinstance(value, str) and re.fullmatch(r"[a-z_]+", value):
                yield value


def _constants(expression: ast.expr | None) -> Iterator[object]:
    """Give the constants that an expression may come to: its own, or those of its branches."""
    if isinstance(expression, ast.Constant):
        yield expression.value
    elif isinstance(expression, ast.IfExp):
        yield from _constants(expression.body)
        yield from _constants(expression.orelse)


def _guest_codes() -> set[str]:
    """Give the codes of the file service: what its sources raise, and those of the system."""
    directory = ROOT / "kernels/guest/sandbox_guest/files"
    source = "\n".join(p.read_text(encoding="utf-8") for p in sorted(directory.glob("*.py")))
    raised = re.findall(r'FileError\(\s*"(\w+)"', source)
    return {*raised, *re.findall(r'errno\.E\w+: \("(\w+)"', source), "failed", "not_found"}


# Pages


def test_no_page_names_a_package_registry():
    registries = r"pypi|pythonhosted|npmjs|crates|rubygems|(?:deb|security|archive|ports)\.\w+"
    hosts = re.compile(rf"\b(?:{registries}|proxy\.golang)\.(?:org|com|io|net)\b")
    assert hosts.search("https://" + "deb.debian" + ".org/debian")
    for page in PAGES:
        assert not hosts.findall(page.read_text(encoding="utf-8")), page.name


def test_every_relative_link_leads_somewhere():
    for page in PAGES:
        text = _without_code(page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert file.is_relative_to(ROOT), f"{page.name}: {target}"
            if anchor:
                assert anchor in _anchors(file.read_text(encoding="utf-8")), (
                    f"{page.name}: {target}"
                )


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_every_command_that_a_page_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    subcommands = set(SandboxCLI.subcommands)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"^```.*?^```$", text, re.S | re.M)
        spans = re.findall(r"`([^`\n]+)`", _without_code(text))
        code = "\n".join([*fenced, *spans])
        assert set(re.findall(r"\bmake ([a-z][a-z-]*)", code)) <= targets, page.name
        assert set(re.findall(r"\bjupyter sandbox ([a-z][a-z-]*)", code)) <= subcommands, page.name


def test_files_and_rooms_that_contributing_names_exist():
    named = {row[0] for row in rows(CONTRIBUTING, "## The rooms")}
    rooms = {words(cell)[0].rstrip("/").removesuffix(".py") for cell in named}
    here = {room for room in MAY_IMPORT if room != "__init__"}
    assert {room for room in rooms if "/" not in room} == here
    for page in PAGES:
        for path in re.findall(
            r"`((?:jupyter_sandbox|kernels|tests|docs)/[\w./-]+)`", page.read_text()
        ):
            assert path in BUILT or (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_and_json_on_the_pages_can_be_parsed(page):
    text = page.read_text(encoding="utf-8")
    for block in code_blocks(text, "python"):
        ast.parse(block)
    for block in code_blocks(text, "json"):
        json.loads(block)


# Examples, on a real server


@pytest.fixture
def engine_name():
    return "bubblewrap"  # what the pages show is the same on each engine


@pytest.fixture
def server_url(jp_serverapp) -> str:
    return jp_serverapp.connection_url


@pytest.mark.bubblewrap
async def test_the_five_minutes_work_as_written(api, server_url, jp_serverapp):
    script = code_blocks(ASSISTANTS, "bash")[0]
    script = script.replace("http://127.0.0.1:8888/sandbox", url_path_join(server_url, "sandbox"))
    script = script.replace("token secret", f"token {jp_serverapp.identity_provider.token}")
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = _calls(done.stdout)
    assert "[New sandbox" in first["content"][0]["text"]
    assert "/workspace/app\n" in first["content"][0]["text"]
    shown = json.loads(code_blocks(ASSISTANTS, "json")[0])
    assert second["content"] == shown["content"]
    assert set(second) == set(shown)
    assert third["content"][0]["text"].startswith("42\n[ok")
    assert re.findall(r"^event: (\w+)$", done.stdout, re.M)[0] == "call"
    assert (await api.json("GET", "conversations"))[1]["conversations"] == []


def _calls(output: str) -> list[dict[str, Any]]:
    """Give the JSON objects that stand one after the other at the beginning of an output."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while output[at:].lstrip().startswith("{"):
        at = output.index("{", at)
        value, at = decoder.raw_decode(output, at)
        found.append(value)
    return found


@pytest.fixture
def example(server_url, jp_serverapp):
    """The loop's module, as written on the page, and a sandbox of it."""
    block = next(b for b in code_blocks(ASSISTANTS, "python") if "class Sandbox" in b)
    names: dict[str, Any] = {}
    exec(compile(block, "assistants.md", "exec"), names)
    token = jp_serverapp.identity_provider.token
    return SimpleNamespace(**names, new=lambda key: names["Sandbox"](server_url, token, key))


PICTURE = (
    "import base64, IPython.display as d; d.display(d.Image(base64.b64decode("
    "'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='"
    ")))"
)


@pytest.mark.bubblewrap
async def test_the_loop_for_messages_works_as_written(api, example):
    sent: list[dict[str, Any]] = []

    def send(body: dict[str, Any]) -> dict[str, Any]:
        sent.append(json.loads(json.dumps(body)))
        if len(sent) > 1:
            return {"content": [{"type": "text", "text": "done"}]}
        uses = [
            ("bash", {"command": "echo hi"}),
            ("view", {"path": "no"}),
            ("python", {"code": PICTURE}),
        ]
        return {
            "content": [
                {"type": "tool_use", "id": str(n), "name": name, "input": arguments}
                for n, (name, arguments) in enumerate(uses)
            ]
        }

    def work() -> None:
        sandbox = example.new("messages")
        messages = example.anthropic_loop(sandbox, send, "Say hi.")
        assert messages[-1]["content"][0]["text"] == "done"
        sandbox.delete()

    await asyncio.to_thread(work)
    assert "input_schema" in sent[0]["tools"][0]
    assert "/mnt/user-data/outputs" in sent[0]["system"]
    bash, view, python = sent[1]["messages"][-1]["content"]
    assert "hi\n[exit code 0" in bash["content"][0]["text"]
    assert (view["is_error"], view["tool_use_id"]) == (True, "1")
    assert python["content"][1]["source"]["media_type"] == "image/png"


@pytest.mark.bubblewrap
async def test_the_loop_for_chat_completions_works_as_written(api, example):
    sent: list[dict[str, Any]] = []

    def send(body: dict[str, Any]) -> dict[str, Any]:
        sent.append(json.loads(json.dumps(body)))
        if len(sent) > 1:
            return {"choices": [{"message": {"role": "assistant", "content": "done"}}]}
        uses = [("python", json.dumps({"code": PICTURE})), ("bash", "{not json"), ("bash", "3")]
        calls = [
            {"id": str(n), "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(uses)
        ]
        return {"choices": [{"message": {"role": "assistant", "tool_calls": calls}}]}

    def work() -> None:
        sandbox = example.new("completions")
        example.openai_loop(sandbox, send, "Show a picture.")
        result = example.mcp_result(sandbox.call("python", {"code": PICTURE}))
        assert [part["type"] for part in result["content"]] == ["text", "image"]
        assert result["isError"] is False
        with pytest.raises(RuntimeError, match="404 not_found"):
            sandbox.request("GET", sandbox.path + "x")
        sandbox.delete()

    await asyncio.to_thread(work)
    assert sent[0]["tools"][0]["function"]["name"] == "bash"
    *_, python, not_json, no_object, picture = sent[1]["messages"]
    assert "[ok" in python["content"]
    assert "no JSON object" in not_json["content"]
    assert "no JSON object" in no_object["content"]
    assert picture["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
