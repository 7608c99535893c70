"""The tools over a real file service, a real database and a real store; commands are faked."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jupyter_sandbox.errors import LimitExceeded, Unavailable
from jupyter_sandbox.models import (
    Areas,
    FileCard,
    ImageContent,
    Limits,
    Outcome,
    ShareRecord,
    TextContent,
    ToolResult,
)
from jupyter_sandbox.sandbox.files import GuestFiles
from jupyter_sandbox.sandbox.link import GuestError
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.vault import Vault
from jupyter_sandbox.stores.vault_opening import open_vault
from jupyter_sandbox.tools.context import ToolContext
from jupyter_sandbox.tools.run import run_tool

from .test_files_client import guest

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x09\0\0\0\x07" + bytes(range(200))


class Broken:
    """Every use of it fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: object, **kwargs: object) -> None:
            raise self._error

        return fail


@dataclass
class Sandbox:
    """Real files, and a shell that answers what it is told to."""

    files: Any
    outcome: Outcome = field(default_factory=lambda: Outcome("", 0.1, 0, "/workspace"))
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    error: Exception | None = None

    async def run_bash(self, call_id, command, timeout_seconds, emit, limit_bytes) -> Outcome:
        self.asked.append((call_id, command, timeout_seconds, limit_bytes))
        if self.error is not None:
            raise self.error
        emit(self.outcome.text)
        return self.outcome

    async def run_python(self, call_id, code, timeout_seconds, emit, limit_bytes) -> Outcome:
        self.asked.append((code, timeout_seconds, limit_bytes))
        return self.outcome


@dataclass
class Desk:
    """A conversation whose areas are directories on this machine."""

    root: Path
    sandbox: Sandbox
    database: Database
    store: Vault
    conversation_id: str
    emitted: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    check_capacity: Any = None

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    async def call(self, tool: str, **arguments: Any) -> ToolResult:
        context = ToolContext(
            conversation_id=self.conversation_id,
            call_id=str(uuid.uuid4()),
            sandbox=self.sandbox,
            limits=self.limits,
            shares=self.store,
            database=self.database,
            emit=self.emitted.append,
            areas=Areas(
                uploads=str(self.root / "uploads"),
                workspace=str(self.workspace),
                outputs=str(self.outputs),
            ),
            check_capacity=self.check_capacity,
        )
        return await run_tool(context, tool, arguments)

    async def stored(self, record: ShareRecord) -> bytes:
        async with self.store.reading(record.stored) as reader:
            return b"".join([piece async for piece in reader.pieces()])

    async def text(self, tool: str, **arguments: Any) -> str:
        result = await self.call(tool, **arguments)
        assert not result.is_error, result
        return text_of(result)

    async def refusal(self, code: str, tool: str, **arguments: Any) -> str:
        result = await self.call(tool, **arguments)
        assert (result.is_error, result.code) == (True, code), result
        return text_of(result)

    async def view(self, path: Path, **arguments: Any) -> str:
        return await self.text("view", path=str(path), **arguments)

    def file(self, name: str, data: bytes | str) -> Path:
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def output(self, name: str, data: bytes | str) -> str:
        path = self.outputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)


def text_of(result: ToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def cards_of(result: ToolResult) -> list[FileCard]:
    return [part for part in result.content if isinstance(part, FileCard)]


@contextlib.asynccontextmanager
async def a_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    for area in ("uploads", "workspace", "outputs"):
        (tmp_path / area).mkdir()
    database = Database(f"sqlite:///{tmp_path / 'sandbox.db'}")
    await database.open()
    store, _ = await open_vault(tmp_path, database.connections, {})
    try:
        record, _ = await database.create_conversation("alice")
        async with guest() as files:
            assert isinstance(files, GuestFiles)
            yield Desk(tmp_path, Sandbox(files), database, store, record.conversation_id)
    finally:
        await store.close()
        await database.close()


# --- bash and python


async def test_bash_hands_on_command_timeout_and_limit_and_emits_output(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.sandbox.outcome = Outcome("hi\n", 0.1, 0, "/workspace")
        assert await desk.text("bash", command="echo hi", timeout_seconds=5) == (
            "hi\n[exit code 0 · 0.1 s · cwd /workspace]"
        )
        await desk.text("bash", command="echo hi")
        assert [asked[1:] for asked in desk.sandbox.asked] == [
            ("echo hi", 5.0, 1_048_576),
            ("echo hi", 600.0, 1_048_576),
        ]
        assert desk.emitted == ["hi\n", "hi\n"]


async def test_python_hands_on_code_timeout_and_limit(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.sandbox.outcome = Outcome("1\n", 0.4)
        assert await desk.text("python", code="1", timeout_seconds=7) == "1\n[ok · 0.4 s]"
        assert desk.sandbox.asked == [("1", 7.0, 1_048_576)]


async def test_an_engine_that_is_away_reads_as_exec_failed(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.sandbox.error = Unavailable("the sandbox does not answer", detail="/host/secret")
        assert await desk.refusal("unavailable", "bash", command="ls") == (
            "exec failed: the sandbox does not answer. A retry may succeed."
        )
        desk.sandbox.files = Broken(Unavailable("the sandbox closed the connection"))
        for tool, arguments in (
            ("view", {"path": "/a"}),
            ("create_file", {"path": "/a", "file_text": ""}),
            ("str_replace", {"path": "/a", "old_str": "x"}),
            ("share_files", {"paths": [str(desk.outputs / "a")]}),
        ):
            said = await desk.refusal("unavailable", tool, **arguments)
            assert said.startswith("exec failed: the sandbox closed the connection.")


async def test_wrong_calls_reach_no_sandbox(tmp_path):
    async with a_desk(tmp_path) as desk:
        assert "there is no tool `rm`" in await desk.refusal("unknown_tool", "rm")
        assert "`command` is missing" in await desk.refusal("invalid_arguments", "bash")
        assert desk.sandbox.asked == []


async def test_beyond_its_capacity_no_tool_runs(tmp_path):
    async with a_desk(tmp_path) as desk:

        async def full() -> None:
            raise LimitExceeded("This conversation's attached files exceed …", status=413)

        desk.check_capacity = full
        said = await desk.refusal("limit_exceeded", "bash", command="ls")
        assert said == "This conversation's attached files exceed …"
        assert desk.sandbox.asked == []


async def test_a_refusal_that_no_tool_expects_is_an_error_without_our_traceback(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.sandbox.files = Broken(GuestError("unheard_of", "something odd", {}))
        said = await desk.refusal("unheard_of", "view", path="/a")
        assert said == "/a: something odd."


# --- view


async def test_view_numbers_the_lines_of_a_file(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "one\n\ttwo\n\nfour – ü 🎉\n")
        assert await desk.view(path) == (
            f"Here's the result of running `cat -n` on {path}:\n"
            "     1\tone\n     2\t\ttwo\n     3\t\n     4\tfour – ü 🎉"
        )


async def test_view_gives_the_range_that_was_asked_for(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "".join(f"line {n}\n" for n in range(1, 11)))
        head = f"Here's the result of running `cat -n` on {path}:\n"
        two = head + "     2\tline 2\n     3\tline 3"
        assert await desk.view(path, view_range=[2, 3]) == two
        assert await desk.view(path, view_range=[9, -1]) == (
            head + "     9\tline 9\n    10\tline 10"
        )
        assert await desk.view(path, view_range=[10, 10]) == head + "    10\tline 10"
        assert await desk.view(path, view_range=[10, 500]) == (
            head + "    10\tline 10\n[the file has 10 lines: the end of view_range was taken as 10]"
        )


@pytest.mark.parametrize(
    ("view_range", "said"),
    [
        (
            [11, 20],
            "Invalid `view_range`: [11, 20]. Its first element `11` should be within the range of "
            "lines of the file: [1, 10]",
        ),
        (
            [0, 5],
            "Invalid `view_range`: [0, 5]. Its first element `0` should be at least 1: lines are "
            "counted from 1.",
        ),
        (
            [5, 4],
            "Invalid `view_range`: [5, 4]. Its second element `4` should be larger or equal than "
            "its first `5` (or -1 for the end of the file).",
        ),
        ([5, -2], "Invalid `view_range`: [5, -2]. Its second element `-2` should be larger"),
    ],
)
async def test_view_refuses_a_range_that_is_none(tmp_path, view_range, said):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "x\n" * 10)
        text = await desk.refusal("bad_range", "view", path=str(path), view_range=view_range)
        assert said in text


async def test_a_cut_view_names_the_range_that_continues_and_so_the_whole_file_can_be_read(
    tmp_path,
):
    async with a_desk(tmp_path) as desk:
        lines = [f"line {n} " + "ü" * (n % 90) for n in range(1, 3001)]
        path = desk.file("long.txt", "".join(line + "\n" for line in lines))
        read: list[str] = []
        asked: dict[str, Any] = {}
        for _ in range(100):
            result = await desk.call("view", path=str(path), **asked)
            text = text_of(result)
            assert len(text.encode()) <= 16_000
            read += re.findall(r"^ *\d+\t(.*)$", text, re.MULTILINE)
            if not result.truncated:
                break
            assert text.endswith("\n... output truncated ...")
            found = re.search(
                r"\n\[lines (\d+)-(\d+) of 3000 are shown; read on with view_range "
                r"\[(\d+), (-1)\]\]\n\.\.\. output truncated \.\.\.$",
                text,
            )
            assert found, text[-200:]
            assert int(found[2]) == len(read) == int(found[3]) - 1
            asked = {"view_range": [int(found[3]), -1]}
        assert read == lines
        text = await desk.view(path, view_range=[10, 2000])
        assert re.search(r"read on with view_range \[\d+, 2000\]\]\n", text)


@pytest.mark.parametrize("size", range(15_850, 16_050, 7))
async def test_a_view_is_never_larger_than_its_limit(tmp_path, size):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "x" * 79 + "\n")
        path.write_text(("x" * 79 + "\n") * (size // 87) + "\r\nend without newline")
        text = await desk.view(path)
        assert len(text.encode()) <= 16_000
        if "end without newline" not in text:
            assert text.endswith("... output truncated ...")


async def test_one_giant_line_is_cut_at_a_character(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("giant.txt", "start" + "🎉" * 100_000 + "\nsecond\n")
        text = await desk.view(path)
        assert text.startswith(f"Here's the result of running `cat -n` on {path}:\n     1\tstart🎉")
        assert len(text.encode()) <= 16_000
        assert "\ufffd" not in text
        found = re.search(r"\[line 1 of 2 is very long, only its first ([\d,]+) bytes", text)
        assert found
        assert 14_000 < int(found[1].replace(",", "")) < 16_000
        assert "read on with view_range [2, -1]]\n... output truncated ..." in text
        only = desk.file("only.txt", "x" * 100_000)
        text = await desk.view(only)
        assert "line 1 of 1 is very long" in text
        assert "read on" not in text


async def test_view_says_what_line_numbers_cannot_show(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("crlf.txt", "a\r\nb\r\n")
        assert (await desk.view(path)).endswith(
            "     1\ta\n     2\tb\n[line endings: CRLF (not shown)]"
        )
        path = desk.file("mixed.txt", "a\r\nb\n")
        assert "[line endings: LF and CRLF mixed (not shown)]" in await desk.view(path)
        path = desk.file("open.txt", "a\nb")
        assert (await desk.view(path)).endswith("\tb\n[no newline at the end of the file]")
        assert (await desk.view(path, view_range=[1, 1])).endswith("\ta")
        path = desk.file("latin.txt", "Grüße\n".encode("latin-1"))
        assert (await desk.view(path)).endswith("     1\tGrüße\n[encoding: Latin-1]")
        path = desk.file("bom.txt", b"\xef\xbb\xbfa\n")
        text = await desk.view(path)
        assert text.endswith("     1\ta\n[encoding: UTF-8 with a byte order mark]")
        path = desk.file("wide.txt", "ü\n".encode("utf-16"))
        text = await desk.view(path)
        assert text.endswith("     1\tü\n[encoding: UTF-16 (little-endian)]")


async def test_bytes_that_are_no_text_show_as_escapes(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "ü\n".encode() * 60_000 + b"bad \x84 byte\n")
        assert "bad \\x84 byte" in await desk.view(path, view_range=[60_001, -1])
        text = await desk.view(path, view_range=[59_990, -1])
        assert " 60000\tü\n 60001\tbad \\x84 byte\n" in text
        assert text.endswith("[encoding: UTF-8 with bytes that are none (shown as \\xNN)]")
        assert (await desk.view(path, view_range=[1, 2])).endswith("     1\tü\n     2\tü")


async def test_an_empty_file_is_said_to_be_empty(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("empty.txt", "")
        assert await desk.view(path) == f"The file {path} is empty (0 bytes)."
        said = await desk.refusal("bad_range", "view", path=str(path), view_range=[2, 3])
        assert said == "Invalid `view_range`: [2, 3]. The file is empty."


async def test_an_image_is_shown_and_other_binaries_are_described(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("misnamed.txt", PNG)
        result = await desk.call("view", path=str(path))
        assert result.content == (
            TextContent(f"Here's the image {path} (image/png, 224 bytes):"),
            ImageContent("image/png", base64.b64encode(PNG).decode()),
        )
        large = desk.file("large.png", PNG + b"\0" * 5_000_000)
        assert (await desk.view(large)).startswith(
            f"The file {large} is an image (image/png, 5,000,224 bytes), too large to be viewed"
        )
        most = desk.file("most.png", PNG + os.urandom(5_000_000 - len(PNG)))
        result = await desk.call("view", path=str(most))
        image = result.content[1]
        assert isinstance(image, ImageContent)
        assert base64.b64decode(image.data) == most.read_bytes()
        binary = desk.file("a.so", b"\x7fELF\x02\x01\x01\x00" * 100)
        assert await desk.view(binary) == (
            f"The file {binary} is binary (application/octet-stream, 800 bytes); only text and "
            "images can be viewed. Use bash or python to look inside."
        )
        pdf = desk.file("a.pdf", b"%PDF-1.7\nno NUL in here\n")
        assert "is binary (application/pdf, 24 bytes)" in await desk.view(pdf)


async def test_a_directory_is_listed_two_levels_deep_with_sizes_and_what_is_left_out(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.file("a/one.txt", "x" * 4096)
        desk.file("a/deep/two.txt", "x")
        desk.file("b.txt", "12345")
        desk.file(".git/config", "")
        desk.file("a/.hidden", "")
        desk.file("node_modules/x/index.js", "")
        (desk.workspace / "link").symlink_to("/etc/passwd")
        os.mkfifo(desk.workspace / "pipe")
        at = str(desk.workspace)
        expected = "\n".join(
            [
                f"Here's the files and directories up to 2 levels deep in {at}, excluding hidden "
                "items and node_modules:",
                f"3 items\t{at}/a/",
                f"1 item\t{at}/a/deep/",
                f"4.0K\t{at}/a/one.txt",
                f"5\t{at}/b.txt",
                f"link\t{at}/link",
                f"fifo\t{at}/pipe",
                "[left out: 2 hidden, 1 node_modules]",
            ]
        )
        assert await desk.view(desk.workspace) == expected
        assert await desk.text("view", path=at + "/") == expected
        said = await desk.refusal("bad_range", "view", path=at, view_range=[1, 2])
        assert said == (
            "The `view_range` parameter is not allowed when `path` points to a directory."
        )


async def test_an_empty_directory_is_said_to_be_empty(tmp_path):
    async with a_desk(tmp_path) as desk:
        assert (await desk.view(desk.workspace)).endswith(":\n(nothing)")


async def test_a_large_directory_is_cut_and_every_entry_counted(tmp_path):
    async with a_desk(tmp_path) as desk:
        for number in range(2500):
            (desk.workspace / f"{number:05}.txt").touch()
        result = await desk.call("view", path=str(desk.workspace))
        text = text_of(result)
        assert result.truncated
        assert len(text.encode()) <= 16_000
        assert text.endswith("\n... output truncated ...")
        shown = len(re.findall(r"^0\t", text, re.MULTILINE))
        found = re.search(r"\[left out: ([\d,]+) more\]", text)
        assert found
        assert shown + int(found[1].replace(",", "")) == 2500


async def test_view_refuses_what_is_no_file_and_does_not_hang(tmp_path):
    async with a_desk(tmp_path) as desk:
        missing = desk.workspace / "missing.txt"
        assert await desk.refusal("not_found", "view", path=str(missing)) == (
            f"The path {missing} does not exist. Please provide a valid path."
        )
        pipe = desk.workspace / "pipe"
        os.mkfifo(pipe)
        said = await desk.refusal("not_a_file", "view", path=str(pipe))
        assert said.startswith(f"The path {pipe} is not a regular file but a FIFO")
        said = await desk.refusal("not_a_file", "view", path="/dev/zero")
        assert "but a device" in said
        loop = desk.workspace / "loop"
        loop.symlink_to(loop)
        assert "in a circle" in await desk.refusal("link_loop", "view", path=str(loop))
        below = desk.file("a.txt", "x") / "b"
        await desk.refusal("not_a_directory", "view", path=str(below))
        await desk.refusal("name_too_long", "view", path="/" + "a" * 300)


async def test_a_relative_path_is_refused_with_the_absolute_one(tmp_path):
    async with a_desk(tmp_path) as desk:
        for tool, arguments in (
            ("view", {}),
            ("create_file", {"file_text": "x"}),
            ("str_replace", {"old_str": "x"}),
        ):
            said = await desk.refusal("not_absolute", tool, path="src/../a.py", **arguments)
            assert said.startswith(
                "The path src/../a.py is not an absolute path, it should start with `/`. "
                f"Maybe you meant {desk.workspace}/a.py?"
            )


# --- create_file


async def test_create_file_makes_the_file_and_its_parents(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.workspace / "new/dir/a.py"
        assert await desk.text("create_file", path=str(path), file_text="x = 'ü'\r\n\0") == (
            f"File created successfully at: {path} (2 lines, 11 bytes)"
        )
        assert path.read_bytes() == "x = 'ü'\r\n\0".encode()
        empty = desk.workspace / "empty"
        assert (await desk.text("create_file", path=str(empty), file_text="")).endswith(
            "(0 lines, 0 bytes)"
        )


async def test_create_file_refuses_an_existing_file_and_names_both_ways_on(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.py", "old\n")
        path.chmod(0o755)
        assert await desk.refusal("exists", "create_file", path=str(path), file_text="new\n") == (
            f"File already exists at: {path}. Nothing was written. To replace the whole file call "
            "`create_file` again with `overwrite: true`; to change part of it use `str_replace`."
        )
        assert path.read_text() == "old\n"
        said = await desk.text("create_file", path=str(path), file_text="new\n", overwrite=True)
        assert said == f"File overwritten successfully at: {path} (1 line, 4 bytes)"
        assert path.read_text() == "new\n"
        assert path.stat().st_mode & 0o777 == 0o755


async def test_create_file_says_that_nothing_was_written(tmp_path):
    async with a_desk(tmp_path) as desk:
        for code, path in (
            ("is_a_directory", str(desk.workspace)),
            ("is_a_directory", f"{desk.workspace}/new/"),
            ("not_a_directory", f"{desk.file('a.txt', '')}/b.txt"),
            ("name_too_long", f"{desk.workspace}/{'a' * 300}"),
        ):
            said = await desk.refusal(code, "create_file", path=path, file_text="x")
            assert said.endswith("Nothing was written.")


async def test_the_uploads_area_is_told_to_be_read_only(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.sandbox.files = Broken(GuestError("read_only", "x is on a read-only file system", {}))
        uploads = tmp_path / "uploads"
        expected = (
            f"The path {uploads}/a.csv is in the uploads area, which is read-only. Copy the file "
            f"to {desk.workspace} and work there. "
        )
        path = f"{uploads}/a.csv"
        said = await desk.refusal("read_only", "create_file", path=path, file_text="")
        assert said == expected + "Nothing was written."
        said = await desk.refusal("read_only", "str_replace", path=path, old_str="x")
        assert said == expected + "No replacement was performed."
        said = await desk.refusal("read_only", "create_file", path="/usr/x", file_text="")
        assert "is on a read-only file system" in said


async def test_a_full_disk_is_told_with_what_to_do(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.sandbox.files = Broken(GuestError("no_space", "no space is left on the disk", {}))
        path = str(desk.workspace / "a")
        said = await desk.refusal("no_space", "create_file", path=path, file_text="x")
        assert "No space is left" in said
        assert "du -ah" in said


# --- str_replace


async def test_str_replace_shows_the_lines_around_the_change(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.py", "".join(f"line {n}\n" for n in range(1, 21)))
        path.chmod(0o750)
        said = await desk.text(
            "str_replace", path=str(path), old_str="line 10\n", new_str="new\nlines\n"
        )
        numbered = "\n".join(
            f"{at:6}\t{line}"
            for at, line in enumerate(
                [f"line {n}" for n in range(6, 10)]
                + ["new", "lines"]
                + [f"line {n}" for n in range(11, 15)],
                6,
            )
        )
        assert said == (
            f"The file {path} has been edited. Here's the result of running `cat -n` on a snippet "
            f"of {path}:\n{numbered}\n"
            "Review the changes and make sure they are as expected. Edit the file again if "
            "necessary."
        )
        assert path.read_text().count("line 10") == 0
        assert path.stat().st_mode & 0o777 == 0o750


async def test_str_replace_without_new_text_deletes(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "only\n")
        said = await desk.text("str_replace", path=str(path), old_str="only\n")
        assert "(the file is empty now)" in said
        assert path.read_bytes() == b""


async def test_str_replace_keeps_tabs_line_endings_and_encoding(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "\tGrün\r\n\tblau\r\n".encode("latin-1"))
        await desk.text("str_replace", path=str(path), old_str="\tGrün\n", new_str="\tRöt\n\tx\n")
        assert path.read_bytes() == "\tRöt\r\n\tx\r\n\tblau\r\n".encode("latin-1")


async def test_no_match_says_so_and_shows_the_nearest_text_and_how_it_differs(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.py", "def f():\n\treturn 'x'\n\nother\n")
        said = await desk.refusal(
            "no_match", "str_replace", path=str(path), old_str="def f():\n    return 'x'"
        )
        assert said == (
            "No replacement was performed, old_str `def f():\n    return 'x'` did not appear "
            f"verbatim in {path}. The nearest text is in lines 1-2:\n"
            "     1\tdef f():\n     2\t\treturn 'x'\n"
            "It differs in: tabs and spaces. Copy the text exactly as it stands there (without "
            "line numbers) and try again."
        )
        said = await desk.refusal("no_match", "str_replace", path=str(path), old_str="zzzzqqqq")
        assert "Nothing in the file is like it." in said
        assert path.read_text() == "def f():\n\treturn 'x'\n\nother\n"


async def test_several_matches_are_named_by_their_lines_also_of_a_text_of_several_lines(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.py", "a\nb\n\na\nb\n\na\nb\n")
        said = await desk.refusal("many_matches", "str_replace", path=str(path), old_str="a\nb")
        assert said == (
            "No replacement was performed. Multiple occurrences of old_str `a\nb` in lines "
            "[1, 4, 7]. Please ensure it is unique: include more surrounding lines in old_str "
            "(and in new_str)."
        )
        path = desk.file("many.txt", "x\n" * 30)
        said = await desk.refusal("many_matches", "str_replace", path=str(path), old_str="x")
        assert "in lines [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] (the first 10 of 30)" in said


async def test_an_edit_that_would_change_nothing_is_refused(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = str(desk.file("a.txt", "x\n"))
        said = await desk.refusal("invalid_arguments", "str_replace", path=path, old_str="")
        assert said.startswith("No replacement was performed. old_str is empty.")
        said = await desk.refusal(
            "invalid_arguments", "str_replace", path=path, old_str="x", new_str="x"
        )
        assert said == "No replacement was performed. old_str and new_str are the same."
        said = await desk.refusal(
            "is_a_directory", "str_replace", path=str(desk.workspace), old_str="x"
        )
        assert said == (
            f"The path {desk.workspace} is a directory and only the `view` command can be used on "
            "directories. No replacement was performed."
        )


async def test_long_texts_and_lines_are_quoted_in_part(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.file("a.txt", "y" * 100_000 + "MARK\n")
        said = await desk.text("str_replace", path=str(path), old_str="MARK", new_str="DONE")
        assert len(said) < 10_000
        said = await desk.refusal("no_match", "str_replace", path=str(path), old_str="z" * 100_000)
        assert "[… 99,600 characters …]" in said
        assert len(said) < 10_000


# --- share_files


async def test_a_shared_file_is_a_copy_with_a_card(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.output("charts/März.png", PNG)
        result = await desk.call("share_files", paths=[path])
        assert not result.is_error
        (card,) = cards_of(result)
        (record,) = await desk.database.shares(desk.conversation_id)
        assert (card.path, card.name, card.size_bytes) == (path, "März.png", len(PNG))
        assert (card.media_type, card.preview, card.version) == ("image/png", "image", 1)
        assert (card.file_id, card.sha256) == (record.share_id, record.sha256)
        assert record.path == "charts/März.png"
        assert text_of(result) == (f"Shared 1 file with the user:\n- {path} (224 bytes, image/png)")
        Path(path).unlink()
        assert await desk.stored(record) == PNG


async def test_sharing_a_path_again_makes_a_new_version_and_keeps_the_old(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.output("a.txt", "one")
        await desk.call("share_files", paths=[path])
        desk.output("a.txt", "two!")
        result = await desk.call("share_files", paths=[path, path])
        (card,) = cards_of(result)  # named twice, shared once
        assert card.version == 2
        assert text_of(result).endswith("(4 bytes, text/plain, version 2)")
        contents = [
            await desk.stored(record) for record in await desk.database.shares(desk.conversation_id)
        ]
        assert sorted(contents) == [b"one", b"two!"]


async def test_one_bad_path_spoils_no_other_and_each_says_why(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.limits = Limits(share_bytes=1000)
        good = desk.output("good.csv", "a,b\n")
        (desk.outputs / "link").symlink_to("/etc/passwd")
        (desk.outputs / "dir").symlink_to(desk.workspace)
        desk.file("inside.txt", "x")
        os.mkfifo(desk.outputs / "pipe")
        bad = {
            str(desk.outputs / "missing"): "not_found",
            str(desk.outputs): "is_a_directory",
            str(desk.file("elsewhere.txt", "x")): "outside",
            f"{desk.outputs}/../workspace/elsewhere.txt": "outside",
            "/etc/passwd": "outside",
            "good.csv": "not_absolute",
            str(desk.outputs / "link"): "link",
            str(desk.outputs / "dir/inside.txt"): "link",
            str(desk.outputs / "pipe"): "not_a_file",
            desk.output("large", "x" * 1001): "too_large",
            str(desk.outputs / "new\nline"): "bad_name",
            str(desk.outputs / "back\\slash"): "bad_name",
        }
        result = await desk.call("share_files", paths=[*bad, good])
        assert (result.is_error, result.code) == (False, "ok")
        cards = cards_of(result)
        assert {card.path: card.code for card in cards if card.error} == bad
        assert cards[-1].path == good
        assert not cards[-1].error
        text = text_of(result)
        assert text.startswith(f"Shared 1 file with the user:\n- {good} (4 bytes, text/csv)\nNot s")
        assert (
            f"- good.csv: The path good.csv is not an absolute path, it should start with `/`. "
            f"Maybe you meant {good}?" in text
        )
        assert len(await desk.database.shares(desk.conversation_id)) == 1
        kept = [p for p in (tmp_path / "vault").rglob("*") if p.is_file()]
        assert len(kept) == 1


async def test_when_nothing_could_be_shared_the_result_is_an_error(tmp_path):
    async with a_desk(tmp_path) as desk:
        result = await desk.call("share_files", paths=[str(desk.outputs / "a")])
        assert (result.is_error, result.code) == (True, "not_found")
        assert text_of(result).startswith("Nothing was shared:\n- ")
        result = await desk.call("share_files", paths=[str(desk.outputs / "a"), "/etc/passwd"])
        assert (result.is_error, result.code) == (True, "not_shared")


async def test_more_files_than_the_limit_are_refused_and_nothing_is_shared(tmp_path):
    async with a_desk(tmp_path) as desk:
        paths = [desk.output(f"{n}.txt", "x") for n in range(21)]
        said = await desk.refusal("invalid_arguments", "share_files", paths=paths)
        assert "`paths` must have 1 to 20 items, not 21" in said
        assert await desk.database.shares(desk.conversation_id) == []
        result = await desk.call("share_files", paths=paths[:20])
        assert len(cards_of(result)) == 20


async def test_shared_files_never_exceed_the_capacity(tmp_path):
    async with a_desk(tmp_path) as desk:
        desk.limits = Limits(capacity_bytes=10)
        first, second = desk.output("a", "123456"), desk.output("b", "12345")
        third = desk.output("c", "1234")
        result = await desk.call("share_files", paths=[first, second, third])
        by_name = {card.name: card for card in cards_of(result)}
        assert by_name["b"].code == "limit_exceeded"
        assert by_name["b"].error == (
            "This conversation's attached files exceed the sandbox capacity (10 bytes combined). "
            "Archive or remove some files and try again."
        )
        assert (by_name["a"].error, by_name["c"].error) == ("", "")
        assert (await desk.database.usage(desk.conversation_id)).share_bytes == 10
        empty = desk.output("empty", "")
        assert not (await desk.call("share_files", paths=[empty])).is_error


async def test_a_sandbox_lost_half_way_leaves_what_was_shared_and_says_so(tmp_path):
    async with a_desk(tmp_path) as desk:
        first, second = desk.output("a", "1"), desk.output("b", "2")
        real = desk.sandbox.files

        class LostAfterOne:
            async def export(self, path: str, *args: Any) -> Any:
                if path == second:
                    raise Unavailable("the sandbox closed the connection")
                return await real.export(path, *args)

        desk.sandbox.files = LostAfterOne()
        result = await desk.call("share_files", paths=[first, second])
        assert not result.is_error
        assert [card.code for card in cards_of(result)] == ["", "unavailable"]
        assert "exec failed: the sandbox closed the connection. A retry may" in text_of(result)


async def test_a_share_that_cannot_be_recorded_leaves_no_file(tmp_path):
    async with a_desk(tmp_path) as desk:
        path = desk.output("a", "1")

        class Unwritable:
            usage, next_version = desk.database.usage, desk.database.next_version

            async def add_share(self, share: Any) -> Any:
                raise Unavailable("the sandbox database does not answer")

        real, desk.database = desk.database, Unwritable()  # type: ignore[assignment]
        said = await desk.refusal("unavailable", "share_files", paths=[path])
        desk.database = real
        assert said == "exec failed: the sandbox database does not answer. A retry may succeed."
        assert [p for p in (tmp_path / "vault").rglob("*") if p.is_file()] == []
