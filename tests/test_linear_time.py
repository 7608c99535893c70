"""No regular expression of the product and no parser in the server takes more than linear time."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from jupyter_sandbox.errors import InvalidRequest, ToolError
from jupyter_sandbox.models import Limits
from jupyter_sandbox.policy.certificates import BundleRefused, require_bundle
from jupyter_sandbox.policy.media import HEAD_BYTES, media_of
from jupyter_sandbox.policy.names import decide_file_name
from jupyter_sandbox.routes.base import SandboxHandler
from jupyter_sandbox.routes.mcp.messages import Refusal, read_message
from jupyter_sandbox.routes.websocket_messages import decode
from jupyter_sandbox.tools import registry
from jupyter_sandbox.tools.notebook_cells import Cells
from tests.attacks import attack

from .fuzzing import CORPUS, TARGETS
from .linear_time import (
    grows_too_fast,
    inputs_of,
    pieces_of,
    seconds_of,
    super_linear,
    unknown_patterns,
    uses,
)

# Patterns that are put together while the program runs, and why that is linear.
MADE_LATER = {
    "sandbox_guest.files.search: re.compile(end.join(pieces), re.DOTALL)": (
        "fixed texts with an optional carriage return between them; in the sandbox"
    ),
    "jupyter_sandbox.routes.mcp.handler: re.fullmatch(pattern, origin)": (
        "the administrator's own allow_origin_pat"
    ),
    "jupyter_sandbox.directories: re.compile(own_names)": "one of two patterns of ours",
    "jupyter_sandbox.settings.problems: re.search(pattern, text.partition('#')[0])": (
        "a setting's name, escaped, in a line of the administrator's file"
    ),
    "jupyter_sandbox.settings.problems: re.compile('|'.join((each.__name__ for each in only_of)))": (
        "names of our classes"
    ),
}
# Parsers that promise no linear time: they run in a process that may be killed.
BOUNDED = {"displays", "documents"}

SLOW = {
    "nested repeats": re.compile(r"(a+)+$"),
    "comments before an SVG": re.compile(r"(?:<\?xml\?>\s*|<!--.*?-->\s*)*<svg[\s>/]", re.DOTALL),
    "spaces at the end": re.compile(r"\s+$"),
    "a status line": re.compile(r"\n?\[[^\n]* · \d+\.\d s[^\n]*\]\Z"),
    "blocks without an end": re.compile(r"-----BEGIN-----.*?-----END-----", re.DOTALL),
}
MOST_SECONDS = 0.25


@pytest.mark.parametrize("name", SLOW)
def test_a_pattern_that_is_slow_is_found(name):
    assert super_linear(lambda text: SLOW[name].sub("", text), pieces_of(SLOW[name]))


@attack("T47")
def test_every_regular_expression_of_the_product_takes_linear_time():
    found = uses()
    assert len({use.pattern for use in found}) >= 45
    slow = {
        f"{use.where} {use.method}": super_linear(use.run, pieces_of(use.pattern)) for use in found
    }
    assert {where: hostile for where, hostile in slow.items() if hostile} == {}


def test_every_pattern_is_known():
    assert unknown_patterns() == sorted(MADE_LATER)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - BOUNDED))
@attack("T47")
def test_every_parser_in_the_server_takes_linear_time(target):
    def run(text: str) -> None:
        TARGETS[target](text.encode("latin-1"))

    seeds = [seed.decode("latin-1") for seed in CORPUS[target]]
    found = [name for name, make in inputs_of(seeds) if grows_too_fast(run, make, 0.012)]
    assert found == []


@pytest.mark.parametrize(
    "piece", ["<!---->", "<!-- -->", "<?xml?>", "<!DOCTYPE a>", " ", "<?xml?><!---->\n", "<!--"]
)
@attack("T47")
def test_a_file_named_svg_is_known_at_once(piece):
    head = (piece.encode() * HEAD_BYTES)[:HEAD_BYTES]
    assert seconds_of(lambda _: media_of("x.svg", head), "") < MOST_SECONDS
    whole = piece.encode() * 100 + b"<svg>"
    assert (media_of("x.svg", whole).preview == "svg") is (piece != "<!--")


@pytest.mark.parametrize("text", ["[" * 30_000, "[ · 1.1 s" * 4_000, "[ · 1.1 s]" * 4_000])
@attack("T47")
def test_a_result_of_many_brackets_is_exported_at_once(text):
    result = {"type": "result", "seq": 1, "tool": "bash", "call_id": "c", "is_error": False}
    result["content"] = [{"type": "text", "text": f"{text}\n[exit code 0 · 0.1 s · cwd /]"}]
    cells = Cells()
    assert seconds_of(lambda _: cells.add(result), "") < MOST_SECONDS
    assert cells.cells[0]["outputs"][0]["text"] == f"{text}\n"


@attack("T47")
def test_a_call_with_a_million_unknown_arguments_is_refused_at_once():
    body = {f"command{n}": n for n in range(200_000)}
    refusals: list[str] = []

    def call(name: str) -> None:
        with pytest.raises(ToolError) as refused:
            registry.prepare(name, body, Limits())
        refusals.append(refused.value.message)

    assert seconds_of(call, "bash") < MOST_SECONDS
    assert seconds_of(call, "x" * 10_000_000) < MOST_SECONDS
    assert "did you mean `command`" in refusals[0]
    assert "and 199996 more" in refusals[0]
    assert len(refusals[1]) < 300


@attack("T47")
def test_a_body_of_millions_of_values_is_refused_before_it_is_parsed():
    body = b'{"a":[' + b"[]," * 5_000_000 + b"1]}"

    def of_a_request(_: str) -> None:
        with pytest.raises(InvalidRequest, match="200,000 values"):
            SandboxHandler.json_body(SimpleNamespace(_body=bytearray(body)))

    def of_mcp(_: str) -> None:
        assert isinstance(read_message(body, {}), Refusal)

    def of_a_websocket(_: str) -> None:
        with pytest.raises(ValueError, match="too many values"):
            decode(body.decode(), False)

    for run in (of_a_request, of_mcp, of_a_websocket):
        assert seconds_of(run, "") < MOST_SECONDS


@attack("T47")
def test_parts_of_a_websocket_message_that_overlap_are_refused():
    count, body = 1000, b"x" * 1000
    for width, order, is_v1 in ((8, "little", True), (4, "big", False)):
        begin = width * (count + 1)
        offsets = [begin if n % 2 else begin + len(body) for n in range(count)]
        table = b"".join(n.to_bytes(width, order) for n in (count, *offsets))
        with pytest.raises(ValueError, match="overlap"):
            decode(table + body, is_v1)


def test_a_name_of_millions_of_characters_is_refused_at_once():
    assert seconds_of(lambda name: decide_file_name(name), "a" * 10_000_000) < 0.05
    assert "10,000,000 characters" in decide_file_name("a" * 10_000_000).reason


def test_certificates_without_an_end_are_none():
    with pytest.raises(BundleRefused, match="no PEM certificate"):
        require_bundle("-----BEGIN CERTIFICATE-----\n" * 100_000)


@pytest.mark.parametrize("text", ["--5", "-", "9" * 5000, "²", "1_0", " 1", "7"])
def test_a_number_in_a_query_is_one_within_its_bounds(text):
    handler = SimpleNamespace(get_query_argument=lambda *_: text)
    if text == "7":
        assert SandboxHandler.integer_argument(handler, "n", 0, 1, 9) == 7
    else:
        with pytest.raises(InvalidRequest, match="an integer from 1 to 9"):
            SandboxHandler.integer_argument(handler, "n", 0, 1, 9)


def test_an_argument_that_is_no_json_is_said_so():
    with pytest.raises(InvalidRequest, match="not JSON"):
        SandboxHandler.json_body(SimpleNamespace(_body=bytearray(b'{"a":')))
    assert SandboxHandler.json_body(SimpleNamespace(_body=bytearray(json.dumps({"a": 1}).encode())))
