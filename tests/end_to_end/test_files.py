"""``view``, ``create_file`` and ``str_replace`` on real files of every awkward kind."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.attacks import attack
from tests.conftest import on_each_engine, on_gvisor_too, text_of

W = "/workspace"


@pytest.mark.parametrize(
    ("make", "old", "new", "after"),
    [
        (r"printf 'a\tb\nc\td\n'", "a\tb", "a\tB", "6109420a6309640a"),
        (r"printf 'a\r\nb\r\nc\r\n'", "a\nb", "A\nB", "410d0a420d0a630d0a"),
        (r"printf '\xef\xbb\xbfa\nb\n'", "a", "A", "efbbbf410a620a"),
        (r"printf 'caf\xe9 a\n'", "caf\u00e9 a", "th\u00e9 a", "7468e920610a"),
        (r"printf 'a\nb'", "b", "B", "610a42"),
        (r"printf 'x\xf0\x9f\x98\x80y\n'", "\U0001f600", "\U0001f601", "78f09f9881790a"),
    ],
    ids=["tabs", "crlf", "bom", "latin-1", "no-final-newline", "4-byte"],
)
async def test_str_replace_keeps_the_bytes_it_was_not_asked_to_change(api, make, old, new, after):
    conversation = await api.conversation()
    await api.bash(conversation, f"{make} > f; chmod 640 f")
    result = await api.call(conversation, "str_replace", path=f"{W}/f", old_str=old, new_str=new)
    assert not result["is_error"], text_of(result)
    assert "1" in text_of(result)
    shown = await api.bash(conversation, "od -An -tx1 f | tr -d ' \\n'; stat -c ' %a' f")
    assert f"{after} 640" in shown


async def test_view_and_str_replace_on_an_empty_file(api):
    conversation = await api.conversation()
    await api.bash(conversation, ": > f")
    assert "empty" in await api.text(conversation, "view", path=f"{W}/f")
    result = await api.call(conversation, "str_replace", path=f"{W}/f", old_str="a", new_str="b")
    assert result["code"] == "no_match"
    assert "No replacement was performed" in text_of(result)


async def test_a_refused_replacement_says_where_and_why(api):
    conversation = await api.conversation()
    text = "def f():\n\treturn 1\n\n\ndef g():\n\treturn 1\n"
    await api.text(conversation, "create_file", path=f"{W}/m.py", file_text=text)
    many = await api.call(
        conversation, "str_replace", path=f"{W}/m.py", old_str="\treturn 1\n", new_str="x"
    )
    assert many["code"] == "many_matches"
    assert "2" in text_of(many)
    assert "6" in text_of(many)
    none = await api.call(
        conversation, "str_replace", path=f"{W}/m.py", old_str="def f():\n    return 1", new_str="x"
    )
    assert none["code"] == "no_match"
    assert "tab" in text_of(none).lower()
    assert text in (await api.bash(conversation, "cat m.py"))


async def test_create_file_refuses_to_overwrite_and_names_both_ways_on(api):
    conversation = await api.conversation()
    path = f"{W}/deep/er/f.txt"
    assert "created" in await api.text(conversation, "create_file", path=path, file_text="one\n")
    refused = await api.call(conversation, "create_file", path=path, file_text="two\n")
    assert refused["code"] == "exists"
    assert "overwrite" in text_of(refused)
    assert "str_replace" in text_of(refused)
    done = await api.call(conversation, "create_file", path=path, file_text="two\n", overwrite=True)
    assert not done["is_error"]
    assert "two" in await api.bash(conversation, f"cat {path}")


@on_each_engine
async def test_a_file_of_100_mib_is_viewed_and_edited_with_flat_memory(api):
    conversation = await api.conversation()
    await api.bash(
        conversation,
        "yes 'some line of text' | head -c 104857600 > big; echo >> big; echo needle >> big",
    )
    process = psutil.Process()
    before = process.memory_info().rss
    view = await api.call(conversation, "view", path=f"{W}/big")
    assert view["truncated"] is True
    assert "... output truncated ..." in text_of(view)
    assert "view_range" in text_of(view)
    edit = await api.call(
        conversation, "str_replace", path=f"{W}/big", old_str="needle", new_str="thread"
    )
    assert not edit["is_error"], text_of(edit)
    assert "thread" in await api.bash(conversation, "tail -n 1 big")
    assert process.memory_info().rss - before < 16 * 1024 * 1024
    peak = await api.bash(
        conversation, "cat /proc/[0-9]*/status | grep -A40 '^Name:.python' | grep VmHWM"
    )
    assert all(int(w) < 120_000 for w in peak.split() if w.isdigit())


@attack("T24")
@on_gvisor_too
async def test_a_directory_of_100000_entries_is_listed_in_bounded_time(api, engine_name):
    conversation = await api.conversation()
    # Each of gVisor's system calls on files is a message to another process.
    number, seconds = (10_000, 20) if engine_name == "gvisor" else (100_000, 5)
    await api.bash(
        conversation,
        f"mkdir many && cd many && seq -f 'file-%06g' {number} | xargs touch && cd ..",
    )
    started = time.monotonic()
    text = await api.text(conversation, "view", path=f"{W}/many")
    assert time.monotonic() - started < seconds
    assert "more" in text
    assert len(text) < 20_000


async def test_a_directory_is_shown_two_levels_deep_without_the_noise(api):
    conversation = await api.conversation()
    await api.bash(
        conversation,
        "mkdir -p p/src/deep/deeper p/node_modules/x p/.git && echo 12345 > p/src/a.py "
        "&& echo x > p/src/deep/b && echo x > p/src/deep/deeper/c && echo > p/.env",
    )
    text = await api.text(conversation, "view", path=f"{W}/p")
    assert f"{W}/p/src/a.py" in text or "src/a.py" in text
    assert "deeper" not in text
    assert ".git" not in text.replace(".gitignore", "")
    assert "node_modules/x" not in text
    assert "hidden" in text


@on_each_engine
@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("true", "does not exist"),
        ("mkfifo f", "FIFO"),
        ("python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('f')\"", "socket"),
        ("ln -s f f", "link"),
        ("ln -s /dev/null f", "device"),
        ("ln -s /nowhere f", "does not exist"),
    ],
    ids=["missing", "fifo", "socket", "loop", "device", "dangling"],
)
async def test_what_is_no_file_never_hangs(api, make, words):
    conversation = await api.conversation()
    await api.bash(conversation, make)
    for tool, arguments in (
        ("view", {}),
        ("str_replace", {"old_str": "a", "new_str": "b"}),
    ):
        started = time.monotonic()
        result = await api.call(conversation, tool, path=f"{W}/f", **arguments)
        assert time.monotonic() - started < 10  # not the call's whole time
        text = text_of(result)
        if tool == "str_replace":
            assert result["is_error"]
            assert "No replacement was performed" in text
        assert words.lower() in text.lower()


async def test_an_image_is_shown_as_an_image_and_another_binary_by_type_and_size(api):
    conversation = await api.conversation()
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    await api.bash(conversation, f"echo {png} | base64 -d > a.png; head -c 3000 /dev/urandom > b")
    image = await api.call(conversation, "view", path=f"{W}/a.png")
    assert next(p for p in image["content"] if p["type"] == "image")["media_type"] == "image/png"
    binary = await api.text(conversation, "view", path=f"{W}/b")
    assert "binary" in binary.lower()
    assert "3,000" in binary or "3000" in binary or "2.9K" in binary


@attack("T27")
@on_gvisor_too
async def test_uploads_are_read_only_inside(api):
    conversation = await api.conversation()
    shown = await api.bash(
        conversation,
        "touch /mnt/user-data/uploads/x; id -u; mount -o remount,rw /mnt/user-data/uploads",
    )
    assert "Read-only file system" in shown
    result = await api.call(
        conversation, "create_file", path="/mnt/user-data/uploads/x", file_text="x"
    )
    assert result["code"] == "read_only"
