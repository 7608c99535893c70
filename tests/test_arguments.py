"""Arguments of tools: their schemas, and what is said when they are wrong."""

from __future__ import annotations

import json
import math

import pytest

from jupyter_sandbox.errors import ToolError
from jupyter_sandbox.models import Limits
from jupyter_sandbox.tools.arguments import parse
from jupyter_sandbox.tools.bash import BashArguments
from jupyter_sandbox.tools.create_file import CreateFileArguments
from jupyter_sandbox.tools.registry import FORMATS, TOOLS, export, prepare
from jupyter_sandbox.tools.share_files import ShareFilesArguments
from jupyter_sandbox.tools.str_replace import StrReplaceArguments
from jupyter_sandbox.tools.view import ViewArguments


def wrong(arguments: type, body: object, limits: Limits | None = None) -> str:
    with pytest.raises(ToolError) as caught:
        parse(arguments, body, limits)
    assert caught.value.code == "invalid_arguments"
    assert caught.value.message.startswith("Nothing was done")
    return caught.value.message


def test_valid_arguments_become_an_instance():
    parsed = parse(BashArguments, {"command": "ls", "timeout_seconds": 5, "description": "look"})
    assert parsed == BashArguments(command="ls", timeout_seconds=5.0, description="look")
    assert parse(BashArguments, {"command": ""}).timeout_seconds is None
    assert parse(ViewArguments, {"path": "/a", "view_range": [1, -1]}).view_range == (1, -1)
    assert parse(ViewArguments, {"path": "/a", "view_range": [1.0, 5.0]}).view_range == (1, 5)
    assert parse(ShareFilesArguments, {"paths": ["/a", "/b"]}).paths == ("/a", "/b")


def test_null_is_as_good_as_absent_where_an_argument_may_be_absent():
    assert parse(ViewArguments, {"path": "/a", "view_range": None}).view_range is None
    assert parse(StrReplaceArguments, {"path": "/a", "old_str": "x", "new_str": None}).new_str == ""
    assert "`command` must be a string, not null" in wrong(BashArguments, {"command": None})


@pytest.mark.parametrize(
    ("arguments", "body", "said"),
    [
        (BashArguments, [], "the arguments must be an object, not an array"),
        (BashArguments, None, "the arguments must be an object, not null"),
        (BashArguments, {}, "the argument `command` is missing"),
        (BashArguments, {"command": 5}, "`command` must be a string, not a number"),
        (BashArguments, {"command": ["ls"]}, "`command` must be a string, not an array"),
        (BashArguments, {"cmd": "ls"}, "there is no argument `cmd`; did you mean `command`?"),
        (
            CreateFileArguments,
            {"path": "/a", "file_txt": "x"},
            "there is no argument `file_txt`; did you mean `file_text`?",
        ),
        (BashArguments, {"command": "a", "restart": 1}, "there is no argument `restart`\n"),
        (
            BashArguments,
            {"command": "a", "timeout_seconds": "5"},
            "`timeout_seconds` must be a number, not a string",
        ),
        (
            BashArguments,
            {"command": "a", "timeout_seconds": True},
            "`timeout_seconds` must be a number, not a boolean",
        ),
        (
            BashArguments,
            {"command": "a", "timeout_seconds": math.nan},
            "`timeout_seconds` must be a number, not nan",
        ),
        (
            BashArguments,
            {"command": "a", "timeout_seconds": 0},
            "`timeout_seconds` must be at least 0.1, not 0",
        ),
        (
            BashArguments,
            {"command": "a", "timeout_seconds": 601},
            "`timeout_seconds` must be at most 600, not 601: start longer work in the background",
        ),
        (
            CreateFileArguments,
            {"path": "/a", "file_text": "", "overwrite": "yes"},
            "`overwrite` must be true or false, not a string",
        ),
        (
            ViewArguments,
            {"path": "/a", "view_range": [1]},
            "`view_range` must be two whole numbers [first, last], not [1]",
        ),
        (
            ViewArguments,
            {"path": "/a", "view_range": "1-5"},
            "`view_range` must be two whole numbers [first, last], not a string",
        ),
        (ViewArguments, {"path": "/a", "view_range": [1.5, 2]}, "must be two whole numbers"),
        (ViewArguments, {"path": "/a", "view_range": [True, 2]}, "must be two whole numbers"),
        (ShareFilesArguments, {"paths": "/a"}, "`paths` must be an array of strings, not a string"),
        (ShareFilesArguments, {"paths": []}, "`paths` must have 1 to 20 items, not 0"),
        (ShareFilesArguments, {"paths": ["/a"] * 21}, "`paths` must have 1 to 20 items, not 21"),
        (ShareFilesArguments, {"paths": ["/a", 1]}, "`paths[1]` must be a string, not a number"),
        (ViewArguments, {"path": "/a\0b"}, "`path` has a NUL character at character 3"),
        (BashArguments, {"command": "\0"}, "`command` has a NUL character at character 1"),
        (
            CreateFileArguments,
            {"path": "/a", "file_text": "ab\ud83d"},
            "`file_text` is not valid Unicode: a lone surrogate (U+D83D) at character 3",
        ),
        (ViewArguments, {"path": "/" + "a" * 4095}, "`path` has 4,096 bytes; at most 4,095"),
    ],
)
def test_what_is_wrong_is_said_precisely(arguments, body, said):
    assert said in wrong(arguments, body)


def test_all_that_is_wrong_is_said_at_once_and_what_the_tool_takes():
    text = wrong(CreateFileArguments, {"path": 1, "txt": "", "overwrite": 0})
    assert "`path` must be a string" in text
    assert "`file_text` is missing" in text
    assert "`overwrite` must be true or false" in text
    assert "there is no argument `txt`" in text
    assert text.endswith(
        "The tool takes: description (string), path (string, required), overwrite (boolean), "
        "file_text (string, required). Correct the arguments and call again."
    )
    many = wrong(BashArguments, {"command": "", **{f"x{n}\n": n for n in range(1000)}})
    assert "and 995 more" in many
    assert len(many) < 1000


def test_a_file_may_have_nul_characters_and_any_length_up_to_the_limit():
    limits = Limits(write_bytes=4)
    body = {"path": "/a", "file_text": "\0ü\0"}
    assert parse(CreateFileArguments, body, limits).file_text == "\0ü\0"
    body["file_text"] += "x"
    said = wrong(CreateFileArguments, body, limits)
    assert "`file_text` has 5 bytes; at most 4 are taken: write large files with a script" in said


@pytest.mark.parametrize("shape", FORMATS)
def test_each_format_exports_every_tool(shape):
    tools = export(shape)
    json.dumps(tools)
    members = {"anthropic": "input_schema", "openai": "parameters", "mcp": "inputSchema"}
    names = []
    for tool in tools:
        inner = tool["function"] if shape == "openai" else tool
        names.append(inner["name"])
        schema = inner[members[shape]]
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= set(schema["properties"])
        assert all(p["description"] for p in schema["properties"].values())
        assert next(iter(schema["properties"])) == "description"
        assert inner["description"]
        assert "{" not in inner["description"]
    assert names == ["bash", "view", "create_file", "str_replace", "share_files", "python"]


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="anthropic, openai, mcp"):
        export("xml")


def test_schemas_tell_the_limits_of_this_server():
    bash = export("anthropic", Limits(command_seconds=30, share_files=3))[0]
    assert bash["input_schema"]["properties"]["timeout_seconds"]["maximum"] == 30
    assert "30 s" in bash["description"]
    assert bash["input_schema"]["required"] == ["command"]


def test_the_order_of_arguments_is_description_path_content():
    order = {tool.name: list(tool.schema(Limits())["properties"]) for tool in TOOLS}
    assert order["create_file"] == ["description", "path", "overwrite", "file_text"]
    assert order["str_replace"] == ["description", "path", "old_str", "new_str"]


def test_an_unknown_tool_names_the_tools():
    with pytest.raises(ToolError) as caught:
        prepare("bsh", {}, Limits())
    assert caught.value.code == "unknown_tool"
    assert caught.value.message == (
        "Nothing was done: there is no tool `bsh`. Did you mean `bash`? The tools are: bash, view, "
        "create_file, str_replace, share_files, python."
    )
