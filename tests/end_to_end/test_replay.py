"""``jupyter sandbox replay``: the same again, or what differs."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import nbformat
import pytest

from jupyter_sandbox.cli.replay_cells import differences, shown, steps_of


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """The command knows no engine."""
    return request.param


@pytest.fixture
def replay(api, jp_serverapp):
    url = f"http://127.0.0.1:{jp_serverapp.port}{jp_serverapp.base_url}"
    env = {**os.environ, "JUPYTER_TOKEN": jp_serverapp.identity_provider.token}

    async def run(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jupyter_sandbox.cli.app", "replay", *words, "--url", url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode, out.decode()

    return run


async def test_a_conversation_is_replayed_and_what_differs_is_said(api, replay, tmp_path):
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "ü a.txt", body=b"given")
    path = "/mnt/user-data/outputs/b.txt"
    await api.bash(conversation, "cat /mnt/user-data/uploads/*; x=1; exit 3")
    await api.call(conversation, "create_file", path=path, file_text="three\n")
    await api.call(conversation, "python", code=f"y = open({path!r}).read(); print(y)")
    await api.call(conversation, "share_files", paths=[path])
    response = await api.raw("GET", "conversations", conversation, "notebook")
    file = tmp_path / "a.ipynb"
    file.write_bytes(response.body)
    status, out = await replay(str(file))
    assert (status, out.splitlines()[-1]) == (0, "4 of 4 calls came out as before"), out
    _, listed = await api.json("GET", "conversations")
    assert [model["id"] for model in listed["conversations"]] == [conversation]

    notebook = json.loads(response.body)
    bash, _, python, _ = (c for c in notebook["cells"] if c["cell_type"] == "code")
    bash["source"] = "%%bash\necho -e '\\e[31mother'; exit 4"
    python["outputs"][0]["text"] = "four\n"
    file.write_text(json.dumps(notebook))
    await api.raw("DELETE", "conversations", conversation)
    status, out = await replay(str(file), "--keep")
    assert status == 1
    assert "uploads that are not there any more: ü a.txt" in out
    assert "exit_code: 4, was 3" in out
    assert "-given" in out
    assert "+other" in out
    assert "-four" in out
    assert "+three" in out
    assert "2 of 4 calls came out as before" in out
    _, listed = await api.json("GET", "conversations")
    assert listed["conversations"][0]["id"] in out


async def test_what_cannot_be_replayed_is_said(api, replay, tmp_path):
    file = tmp_path / "a.ipynb"
    for text, said in (
        ("no json", "is no notebook"),
        (nbformat.writes(nbformat.v4.new_notebook()), "has no call"),
    ):
        file.write_text(text)
        status, out = await replay(str(file))
        assert status == 1
        assert said in out
    status, out = await replay(str(tmp_path / "missing.ipynb"))
    assert status == 1
    assert "cannot be read" in out
    status, out = await replay()
    assert status == 1
    assert "give one notebook" in out
    _, listed = await api.json("GET", "conversations")
    assert listed["conversations"] == []


def test_what_a_terminal_gets_is_printable():
    assert shown("\x1b[2J\r\nx" + "y" * 500).isprintable()
    old = {"outputs": [{"output_type": "stream", "text": "\x1b]0;owned\x07\n" * 100}]}
    lines = differences(old, {})
    assert len(lines) == 21
    assert all(line.isprintable() for line in lines)


def test_clipped_calls_are_not_made_again():
    facts = {"tool": "bash", "arguments": {"command": "a…b"}, "clipped": True}
    (step,) = steps_of(
        {"cells": [{"source": "%%bash\na…b", "metadata": {"jupyter_sandbox": facts}}]}
    )
    assert "too long" in step.problem
