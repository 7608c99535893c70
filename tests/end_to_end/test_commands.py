"""Commands that other systems trip over: background jobs, timeouts, floods, bytes."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.attacks import attack
from tests.conftest import on_each_engine, on_gvisor_too, text_of


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1000 & echo done",
        "setsid sleep 1000 & disown; echo done",
        "nohup sleep 1000 >/dev/null 2>&1 & echo done",
        "(sleep 1000 &) ; echo done",
    ],
)
@attack("T20")
@on_gvisor_too
async def test_a_background_process_does_not_hold_the_call(api, command):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    started = time.monotonic()
    result = await api.bash(conversation, command)
    assert time.monotonic() - started < 10, "it was held; the machine may be busy"
    assert result.startswith("done\n")
    assert "1 background job running" in result
    assert "sleep" in await api.bash(conversation, "cat /proc/[0-9]*/comm")


@attack("T20")
@on_gvisor_too
async def test_a_timeout_ends_the_whole_tree_also_what_left_the_session(api):
    conversation = await api.conversation()
    await api.bash(conversation, "export KEPT=1")
    started = time.monotonic()
    result = await api.call(
        conversation,
        "bash",
        command="echo before; (env -i setsid sleep 1001 &); setsid sleep 1002 & "
        "python3 -c 'import os,time\nif os.fork()==0:\n os.setsid()\n if os.fork()==0:\n  time.sleep(1003)'"
        " & trap '' TERM; sleep 1004",
        timeout_seconds=2,
    )
    text = text_of(result)
    assert time.monotonic() - started < 10
    assert "before\n" in text
    assert "[command timed out after 2 s]" in text
    left = await api.bash(conversation, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo $KEPT")
    for marker in ("1001", "1002", "1003", "1004"):
        assert marker not in left
    assert "1\n[exit code 0" in left


@on_each_engine
async def test_nothing_waits_for_input(api):
    conversation = await api.conversation()
    started = time.monotonic()
    result = await api.bash(conversation, "cat; read x; python3 -c 'input()'; git log; echo end")
    assert "end\n" in result
    assert time.monotonic() - started < 30


@attack("T18")
@on_gvisor_too
async def test_a_flood_is_cut_spooled_and_costs_the_host_no_memory(api):
    conversation = await api.conversation()
    # As much as is kept of a flood: threads and buffers of the first such output stay.
    await api.bash(conversation, "yes | head -c 1048576")
    process = psutil.Process()
    before = process.memory_info().rss
    result = await api.call(conversation, "bash", command="yes | head -c 104857600")
    grown = process.memory_info().rss - before
    text = text_of(result)

    assert result["truncated"] is True
    lines = text.rstrip("\n").split("\n")
    assert lines[-2] == "... output truncated (exceeded 1 MiB) ..."
    assert lines[-1].startswith("[exit code 0 · ")
    assert len(text) < 1_048_576 + 2000
    spool = next(w for line in lines if "bytes not shown" in line for w in line.split() if "/" in w)
    assert "67108864" in await api.bash(conversation, f"wc -c < {spool}")
    assert "y" in await api.text(conversation, "view", path=spool, view_range=[5, 6])
    assert grown < 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (r"printf 'a\xff\xfeb'", r"a\xff\xfeb"),
        (r"printf 'a\0b'", r"a\x00b"),
        (r"printf '\xf0\x9f\x98\x80 é'", "😀 é"),
        (r"printf '\033[31mred\033[0m \033]0;title\007plain'", "red plain"),
        ("echo out; echo err >&2; echo out2", "out\nerr\nout2"),
        ("true", "(no output)"),
    ],
)
async def test_bytes_are_shown_as_text(api, command, shown):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    assert (await api.bash(conversation, command)).startswith(shown)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("true", "0"),
        ("false", "1"),
        ("exit 42", "42"),
        ("/etc/passwd", "126"),
        ("no-such-command", "127"),
        ("kill -KILL $$", "137 (SIGKILL)"),
        ("kill -TERM $$", "143 (SIGTERM)"),
        ("bash -c 'kill -SEGV $$'", "139"),
    ],
)
async def test_the_exit_code_stands_in_the_last_line(api, command, code):
    conversation = await api.conversation()
    text = await api.bash(conversation, command)
    assert text.rstrip("\n").split("\n")[-1].startswith(f"[exit code {code}")


@attack("T18")
@on_gvisor_too
async def test_one_line_of_50_mib_and_200000_lines(api):
    conversation = await api.conversation()
    long_line = await api.call(
        conversation, "bash", command="head -c 52428800 /dev/zero | tr '\\0' x"
    )
    many = await api.call(conversation, "bash", command="seq 200000")
    for result in (long_line, many):
        assert result["truncated"] is True
        assert len(text_of(result)) < 1_048_576 + 2000
    assert "\n200000\n... output truncated" in text_of(many)
    assert "\n1\n2\n3\n" in "\n" + text_of(many)


@on_each_engine
async def test_a_syntax_error_and_an_exec_end_like_in_any_shell(api):
    conversation = await api.conversation()
    assert "syntax error" in await api.bash(conversation, "if then")
    assert "/etc\n" in await api.bash(conversation, "exec ls -d /etc")
    assert "fine" in await api.bash(conversation, "echo fine")


@on_each_engine
async def test_output_arrives_while_it_is_produced(api, jp_fetch):
    import json

    conversation = await api.conversation()
    await api.bash(conversation, "true")
    events, times = [], []

    def on_chunk(chunk: bytes) -> None:
        times.append(time.monotonic())
        events.append(chunk.decode())

    await api.raw(
        "POST",
        "conversations",
        conversation,
        "tools",
        "bash",
        body={"command": "echo one; sleep 1; echo two"},
        headers={"Accept": "text/event-stream"},
        streaming_callback=on_chunk,
    )
    text = "".join(events)
    names = [line[7:] for line in text.split("\n") if line.startswith("event: ")]
    datas = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]
    assert names[0] == "call"
    assert names[-1] == "result"
    assert set(names[1:-1]) == {"output"}
    assert "".join(d["text"] for d in datas[1:-1]) == "one\ntwo\n"
    assert datas[-1]["exit_code"] == 0
    first = next(t for t, e in zip(times, events, strict=True) if "one" in e)
    assert times[-1] - first > 0.8


@on_each_engine
async def test_a_call_goes_on_without_its_client_and_can_be_fetched_and_cancelled(api):
    conversation = await api.conversation()
    status, call = await api.json(
        "POST",
        "conversations",
        conversation,
        "tools",
        "bash?wait=0",
        body={"command": "sleep 2; echo finished"},
    )
    assert status == 202
    assert call["state"] == "running"
    status, done = await api.json(
        "GET", "conversations", conversation, "calls", call["call_id"] + "?wait=20"
    )
    assert done["state"] == "finished"
    assert "finished" in text_of(done)
    again = await api.json("GET", "conversations", conversation, "calls", call["call_id"])
    assert text_of(again[1]) == text_of(done)

    status, call = await api.json(
        "POST", "conversations", conversation, "tools", "bash?wait=0", body={"command": "sleep 100"}
    )
    started = time.monotonic()
    await api.json("POST", "conversations", conversation, "calls", call["call_id"], "cancel")
    status, done = await api.json(
        "GET", "conversations", conversation, "calls", call["call_id"] + "?wait=20"
    )
    assert time.monotonic() - started < 8
    assert done["state"] in ("finished", "cancelled")
    assert "SIGINT" in text_of(done) or "interrupted" in text_of(done)
