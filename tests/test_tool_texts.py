"""What a model reads of commands and cells: plain text, bounds, notes, status lines."""

from __future__ import annotations

import base64
import time
from dataclasses import replace

import pytest

from jupyter_sandbox.errors import LimitExceeded, NotFound, ToolError, Unavailable
from jupyter_sandbox.models import (
    Areas,
    FileCard,
    Image,
    ImageContent,
    Limits,
    Outcome,
    TextContent,
    ToolResult,
)
from jupyter_sandbox.sandbox.link import GuestError
from jupyter_sandbox.tools.ansi import plain
from jupyter_sandbox.tools.bash import bash_result
from jupyter_sandbox.tools.bounds import SLACK_BYTES, bound, cut_head, cut_tail
from jupyter_sandbox.tools.capacity import FRESH_SECONDS, Capacity
from jupyter_sandbox.tools.guidance import guidance
from jupyter_sandbox.tools.python import python_result
from jupyter_sandbox.tools.run import error_result, with_notice
from jupyter_sandbox.tools.texts import short_size

MIB = 1024 * 1024
NOTICE = "... output truncated (exceeded 1 MiB) ..."
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x09\0\0\0\x07" + b"\0" * 20


def text_of(result: ToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def bash(**fields: object) -> str:
    outcome = Outcome("", 0.04, 0, "/workspace")
    return text_of(bash_result(replace(outcome, **fields), Limits()))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("plain\n\ttext – ü 🎉\n", "plain\n\ttext – ü 🎉\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "textlink"),
        ("\x1b]0;never finished\nnext line", "0;never finished\nnext line"),
        ("\x1bPsixel\x1b\\x\x1b(Bx\x1b=", "xx"),
        ("a\r\nb\r\r\nc", "a\nb\nc"),
        ("10%\r 55%\r100%\ndone", "100%\ndone"),
        ("10%\r55%\r", "55%"),
        ("loading...\rok", "okading..."),
        ("loading...\r\x1b[Kok", "ok"),
        ("loading...\x1b[2K\rok", "ok"),
        ("\x1b[32mloading...\r\x1b[0K\x1b[32mok\x1b[0m", "ok"),
        ("spin |\b/\b-\bx", "spin x"),
        ("bell\x07 null\0 del\x7f c1\x85 shift\x0e", "bell null\\x00 del c1 shift"),
        ("page\x0cnext\x0bnext", "page\nnext\nnext"),
        ("\x1b", ""),
        ("fake \x1c\x1d markers", "fake  markers"),
        ("", ""),
    ],
)
def test_terminal_codes_are_gone_and_progress_is_in_its_last_state(text, read):
    assert plain(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]" * 500_000,
        "\x1bP" * 500_000,
        "\x1b[" * 500_000,
        "\x1b]0;" + "x" * 1_000_000,
        "\x1bP" + "x" * 1_000_000,
        "x" * 500_000 + "\ry" * 250_000,
        "\b" * 1_000_000,
        "x\x1b[2K" * 200_000,
        "x\r\x1b[K" * 200_000,
        "\x9d" * 1_000_000,
        "\r" * 1_000_000 + "x",
    ],
)
def test_hostile_text_takes_linear_time(text):
    started = time.monotonic()
    plain(text)
    assert time.monotonic() - started < 5


def test_text_up_to_the_limit_and_its_notices_is_not_cut():
    text = "x" * (MIB + SLACK_BYTES)
    assert bound(text, MIB) == (text, False)
    cut, was_cut = bound(text + "x", MIB)
    assert was_cut
    assert cut.endswith(f"x\n{NOTICE}")


def test_of_a_flood_head_and_tail_are_kept_with_the_omitted_size_between():
    text = "HEAD" + "ü" * MIB + "TAIL"
    cut, was_cut = bound(text, MIB)
    assert was_cut
    head, between, rest = cut.partition("\n[... ")
    assert head.startswith("HEADü")
    assert len(head.encode()) in range(MIB // 4 - 3, MIB // 4 + 1)
    omitted, _, tail = rest.partition(" bytes not shown ...]\n")
    assert between
    body, _, notice = tail.rpartition("\n")
    assert notice == NOTICE
    assert body.endswith("üTAIL")
    kept = len(head.encode()) + len(body.encode())
    assert int(omitted.replace(",", "")) == len(text.encode()) - kept
    assert len(cut.encode()) < MIB + 200


@pytest.mark.parametrize("size", range(13))
def test_cuts_are_at_character_borders(size):
    data = "aé日🎉x".encode()
    assert len(cut_head(data, size)) <= size
    assert len(cut_tail(data, size)) <= size
    assert "aé日🎉x".startswith(cut_head(data, size).decode())
    assert "aé日🎉x".endswith(cut_tail(data, size).decode())


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "[exit code 0 · 0.0 s · cwd /workspace]"),
        (
            {"exit_code": 1, "duration_seconds": 12.44, "cwd": "/workspace/app"},
            "[exit code 1 · 12.4 s · cwd /workspace/app]",
        ),
        ({"exit_code": 137}, "[exit code 137 (SIGKILL) · 0.0 s · cwd /workspace]"),
        ({"exit_code": 143}, "[exit code 143 (SIGTERM) · 0.0 s · cwd /workspace]"),
        ({"exit_code": 128}, "[exit code 128 · 0.0 s · cwd /workspace]"),
        ({"exit_code": 255}, "[exit code 255 · 0.0 s · cwd /workspace]"),
        ({"exit_code": None, "cwd": ""}, "[no exit code · 0.0 s]"),
        (
            {"jobs": ((12, "sleep"), (40, "node"))},
            "[exit code 0 · 0.0 s · cwd /workspace · 2 background jobs running: sleep (pid 12), "
            "node (pid 40)]",
        ),
        (
            {"jobs": ((12, "sleep"),)},
            "[exit code 0 · 0.0 s · cwd /workspace · 1 background job running: sleep (pid 12)]",
        ),
    ],
)
def test_the_status_line_of_a_command(fields, line):
    assert bash(text="out\n", **fields).split("\n")[-1] == line


def test_a_status_line_is_one_bounded_line_whatever_the_sandbox_claims():
    text = bash(text="x", cwd="/a\nb]" + "c" * 5000, jobs=tuple((n, "j\n" * 90) for n in range(99)))
    line = text.split("\n")[-1]
    assert line.startswith("[exit code 0 · 0.0 s · cwd /a\ufffdb]ccc")
    assert line.endswith(" and 91 more]")
    assert len(line) < 1200


def test_silence_is_said():
    assert bash() == "(no output)\n[exit code 0 · 0.0 s · cwd /workspace]"
    assert bash(text="\n\x1b[0m\n").startswith("(no output)\n[exit")


def test_output_comes_first_and_is_not_changed():
    assert bash(text="  a\n\nb\n") == "  a\n\nb\n[exit code 0 · 0.0 s · cwd /workspace]"


def test_a_non_zero_exit_is_data():
    result = bash_result(Outcome("", 0.1, 3, "/"), Limits())
    assert (result.is_error, result.code, result.exit_code) == (False, "ok", 3)
    assert result.truncated is False


def test_the_status_line_stands_behind_the_notice_of_a_cut_output():
    inside = f"head\n[... 5 bytes not shown; whole output: /x.log ...]\ntail\n{NOTICE}\n"
    result = bash_result(Outcome(inside, 0.1, 0, "/", truncated=True), Limits())
    assert text_of(result) == inside + "[exit code 0 · 0.1 s · cwd /]"
    assert result.truncated is True


def test_a_sandbox_that_cuts_nothing_is_cut_by_the_host():
    result = bash_result(Outcome("x" * 3 * MIB, 0.1, 0, "/"), Limits())
    assert result.truncated is True
    assert text_of(result).endswith(f"x\n{NOTICE}\n[exit code 0 · 0.1 s · cwd /]")


def test_a_timeout_says_what_was_ended_lost_and_kept():
    outcome = Outcome("so far\n", 600.2, 143, "/workspace", timed_out=True, killed=3)
    result = bash_result(outcome, Limits())
    assert (result.is_error, result.code) == (True, "timeout")
    lines = text_of(result).split("\n")
    assert lines[0] == "so far"
    assert lines[1] == "[command timed out after 600 s]"
    assert lines[2] == (
        "The command's 3 processes were ended; nothing of it still runs. Lost: what it had not yet "
        "written. Kept: files, and the working directory and exported variables from before the "
        "command."
    )
    assert "in the background" in lines[3]
    assert lines[4] == "[exit code 143 (SIGTERM) · 600.2 s · cwd /workspace]"
    assert "[command timed out after 2.5 s]" in text_of(bash_result(outcome, Limits(), 2.5))


def test_a_cancelled_command_says_so():
    result = bash_result(Outcome("", 1, 130, "/", interrupted=True), Limits())
    assert (result.is_error, result.code) == (True, "cancelled")
    assert "[command was cancelled]" in text_of(result)


def test_a_killed_command_names_the_memory_limit_unless_we_ended_it():
    assert "memory limit" in bash(exit_code=137)
    assert "memory limit" not in bash(exit_code=137, timed_out=True)


def test_what_background_jobs_still_write_has_a_place():
    text = bash(text="x\n", jobs=((5, "node"),), jobs_output="/var/tmp/sandbox-output/1.log")
    assert "[what the background jobs still write goes to /var/tmp/sandbox-output/1.log]\n[" in text


def test_what_a_restart_has_cost_is_told_first():
    assert bash(text="x\n", lost="The kernel was restarted.").startswith(
        "The kernel was restarted.\nx\n["
    )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "[ok · 0.4 s]"),
        ({"error": "NameError: name 'x' is not defined"}, "[error NameError · 0.4 s]"),
        ({"error": ""}, "[error · 0.4 s]"),
        ({"error": "KeyboardInterrupt", "interrupted": True}, "[cancelled · 0.4 s]"),
        ({"error": "KeyboardInterrupt", "timed_out": True}, "[timed out · 0.4 s]"),
    ],
)
def test_the_status_line_of_a_cell(fields, line):
    result = python_result(Outcome("", 0.4, **fields), Limits(), 600)
    assert text_of(result).split("\n")[0] == "(no output)"
    assert text_of(result).split("\n")[-1] == line


def test_an_exception_of_a_cell_is_data_and_a_timeout_an_error():
    raised = python_result(Outcome("Traceback\n", 0.1, error="ValueError: x"), Limits(), 600)
    assert (raised.is_error, raised.code) == (False, "ok")
    late = python_result(Outcome("", 0.1, timed_out=True), Limits(), 1.5)
    assert (late.is_error, late.code) == (True, "timeout")
    assert "[cell timed out after 1.5 s]" in text_of(late)


def test_images_of_a_cell_are_what_they_are_not_what_they_claim():
    outcome = Outcome(
        "",
        0.1,
        images=(
            Image("image/jpeg", PNG),
            Image("image/png", b"<svg onload=alert(1)>"),
            Image("image/png", PNG + b"\0" * 5_000_000),
        ),
    )
    result = python_result(outcome, Limits(), 600)
    assert result.content[1:] == (ImageContent("image/png", base64.b64encode(PNG).decode()),)
    text = text_of(result)
    assert "(no output)" not in text
    assert "[an image that is no png, jpeg, gif or webp is not shown]" in text
    assert "[an image of 5,000,044 bytes is not shown; 5,000,000 are the most]" in text
    many = python_result(replace(outcome, images=(Image("image/png", PNG),) * 25), Limits(), 600)
    assert len(many.content) == 21
    assert "[5 more images are not shown]" in text_of(many)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ToolError("No.", code="no_match"), "no_match", "No."),
        (ToolError("Died:\n\x1b[31mlast\x1b[0m", code="kernel_died"), "kernel_died", "Died:\nlast"),
        (LimitExceeded("Too much.", status=413), "limit_exceeded", "Too much."),
        (
            Unavailable("the sandbox does not answer", detail="/host/path"),
            "unavailable",
            "exec failed: the sandbox does not answer. A retry may succeed.",
        ),
        (NotFound("There is no such conversation."), "not_found", "There is no such conversation."),
        (
            GuestError("failed", "the file service failed", {}),
            "failed",
            "Nothing was done: the file service failed.",
        ),
    ],
)
def test_errors_become_results_that_never_look_like_success(error, code, text):
    result = error_result(error)
    assert result.is_error
    assert (result.code, text_of(result)) == (code, text)


def test_a_notice_stands_at_the_head_of_the_first_text():
    card = FileCard("/a", "a")
    result = ToolResult((card, TextContent("text")), exit_code=3)
    told = with_notice(result, "New sandbox.")
    assert told.content == (card, TextContent("New sandbox.\n\ntext"))
    assert told.exit_code == 3
    assert with_notice(ToolResult((card,)), "N.").content == (TextContent("N."), card)
    assert with_notice(result, "") is result


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (4096, "4.0K"),
        (1_048_575, "1.0M"),
        (1_300_000, "1.2M"),
        (5 * 1024**3, "5.0G"),
    ],
)
def test_sizes_are_written_as_du_does(size, shown):
    assert short_size(size) == shown


def test_the_guidance_names_paths_limits_and_the_network():
    text = guidance(Limits(command_seconds=90), Areas(workspace="/work"), network="None at all.")
    for said in (
        "/mnt/user-data/uploads",
        "/mnt/user-data/outputs",
        "/work",
        "90 s",
        "1,048,576 bytes",
        "16,000 bytes",
        "Network: None at all.",
        "`share_files`",
        "exec failed: ",
    ):
        assert said in text
    assert "{" not in text


class Keeps:
    def __init__(self) -> None:
        self.used, self.asked = 0, 0

    async def usage(self, conversation_id: str):
        from jupyter_sandbox.models import StoreUsage

        self.asked += 1
        return StoreUsage(self.used, 1)


async def test_the_capacity_check_asks_seldom_and_refuses_with_the_words_of_the_spec():
    now, kept = [0.0], Keeps()
    capacity = Capacity(kept, 5 * 1024**3, lambda: now[0])
    kept.used = 5 * 1024**3
    for _ in range(3):
        await capacity.check("c")
    assert kept.asked == 1
    kept.used += 1
    now[0] += FRESH_SECONDS
    with pytest.raises(LimitExceeded) as caught:
        await capacity.check_of("c")()
    assert caught.value.message == (
        "This conversation's attached files exceed the sandbox capacity (5 GiB combined). "
        "Archive or remove some files and try again."
    )
    kept.used = 1
    await capacity.check("c")  # at once, when there is room again
    kept.used = 5 * 1024**3 + 1
    await capacity.check("c")
    capacity.forget("c")
    with pytest.raises(LimitExceeded):
        await capacity.check("c")
