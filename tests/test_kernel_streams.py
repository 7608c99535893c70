"""The Python kernel by itself: what it sends, how large, and what it keeps in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from sandbox_guest.output import BoundedOutput, notice
from sandbox_python import bounds
from sandbox_python.cell_output import PIECE_BYTES, CellOutput, LooseOutput, Outputs

from .local_guest import PYTHON_PATH

MIB = 1024 * 1024
NOTICE = notice(MIB)


@dataclass
class Ran:
    """All that one request brought."""

    reply: dict[str, Any]
    reply_metadata: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [m["content"] for m in self.messages if m["msg_type"] in types]

    @property
    def text(self) -> str:
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def facts(self) -> dict[str, Any]:
        return self.reply_metadata["sandbox"]


class Kernel:
    """A kernel process and a client of it."""

    def __init__(self, directory, **env: str) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        path = str(directory / "k.json")
        ports = {
            f"{n}_port": i for i, n in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)
        }
        write_connection_file(path, transport="ipc", ip=str(directory / "s"), key=b"key", **ports)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sandbox_python", "-f", path],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
                "PYTHONPATH": PYTHON_PATH,
                "SANDBOX_SPOOL_DIR": str(directory / "spools"),
                "HOME": str(directory),
                **env,
            },
            cwd=directory,
            start_new_session=True,
        )
        self.client = BlockingKernelClient()
        self.client.load_connection_file(path)
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=30)

    def run(self, code: str, timeout: float = 60) -> Ran:
        msg_id = self.client.execute(textwrap.dedent(code), allow_stdin=False, stop_on_error=False)
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            messages.append(message)
            if message["content"].get("execution_state") == "idle":
                break
        reply = self.reply(msg_id, timeout)
        return Ran(reply["content"], reply["metadata"], messages)

    def reply(self, msg_id: str, timeout: float = 30) -> dict[str, Any]:
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"]["msg_id"] == msg_id:
                return reply

    def peak_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        self.client.stop_channels()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def kernel():
    with tempfile.TemporaryDirectory(prefix="jsbk", dir="/tmp") as directory:
        kernel = Kernel(Path(directory))
        yield kernel
        kernel.close()


def test_stdout_and_stderr_keep_their_names_and_their_order(kernel):
    ran = kernel.run("import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')")
    assert [(c["name"], c["text"]) for c in ran.of("stream")] == [
        ("stdout", "a\n"),
        ("stderr", "b\n"),
        ("stdout", "c\n"),
    ]
    assert ran.facts == {"truncated": False, "omitted_bytes": 0, "total_bytes": 6, "spool": None}


def test_text_comes_before_the_display_that_follows_it(kernel):
    ran = kernel.run(
        "from IPython.display import display, HTML\nprint('a'); display(HTML('<b>')); print('b')"
    )
    kinds = [m["msg_type"] for m in ran.messages if m["msg_type"] in ("stream", "display_data")]
    assert kinds == ["stream", "display_data", "stream"]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("import subprocess; subprocess.run(['echo', 'x']);", "x\n"),
        ("!echo x", "x\r\n"),
        ("%%bash\necho x", "x\n"),
        ("import os; os.system('echo x');", "x\n"),
        ("import os; os.write(2, b'x\\n');", "x\n"),
        ("import sys, subprocess; subprocess.run(['echo', 'x'], stdout=sys.stdout);", "x\n"),
        ("import os; os.write(1, b'\\xff\\n');", "\\xff\n"),
    ],
)
def test_what_children_and_c_code_write_is_there_when_the_cell_ends(kernel, code, shown):
    for _ in range(5):
        assert kernel.run(code, timeout=15).text == shown


def test_output_of_forked_children_goes_through_the_same_bound(kernel):
    ran = kernel.run(
        """
        import multiprocessing
        def work(i): print("child" * 400_000)
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=work, args=(i,)) for i in range(2)]
        [c.start() for c in children]; [c.join() for c in children]; None
        """
    )
    assert ran.text.endswith(NOTICE + "\n")
    assert ran.facts["total_bytes"] == 2 * (2_000_000 + 1)


FLOODS = {
    "one print": "print('x' * 100_000_000)",
    "many prints": "for i in range(100_000): print('x' * 99)",
    "two streams": """
        import sys
        for i in range(50_000): sys.stdout.write('o' * 99); sys.stderr.write('e')
    """,
    "a child": "import os; os.system('head -c 100000000 /dev/zero | tr \"\\\\0\" x');",
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_in_pieces_named_in_a_file_and_costs_no_memory(kernel, name):
    kernel.run("print('x' * 100_000_000)")  # what the string itself takes is not ours to save
    before = kernel.peak_bytes()
    ran = kernel.run(FLOODS[name])
    assert ran.facts["truncated"]
    assert ran.text.endswith(f"\n{NOTICE}\n")
    assert ran.facts["spool"] in ran.text
    assert MIB * 0.9 < len(ran.text) < MIB + 1000
    assert all(len(c["text"].encode()) <= PIECE_BYTES for c in ran.of("stream"))
    assert len(ran.messages) < 500
    size = os.path.getsize(ran.facts["spool"])
    assert size == min(ran.facts["total_bytes"], 64 * MIB)
    assert ran.facts["total_bytes"] - ran.facts["omitted_bytes"] <= MIB
    assert kernel.peak_bytes() - before < 12 * MIB


def test_two_gigabytes_of_a_child_cost_no_memory(kernel):
    kernel.run("print('x' * 100_000_000)")
    before = kernel.peak_bytes()
    ran = kernel.run("import os; os.system('head -c 2000000000 /dev/zero');", timeout=120)
    assert ran.facts["total_bytes"] == 2_000_000_000
    assert kernel.peak_bytes() - before < 12 * MIB


def test_a_limit_that_the_request_names_holds_for_its_cell_only(kernel):
    message = kernel.client.session.msg(
        "execute_request",
        {"code": "print('y' * 5000)", "silent": False, "allow_stdin": False},
        metadata={"sandbox": {"limit_bytes": 1000}},
    )
    kernel.client.shell_channel.send(message)
    reply = kernel.reply(message["header"]["msg_id"])
    assert reply["metadata"]["sandbox"]["truncated"]
    assert not kernel.run("print('y' * 5000)").facts["truncated"]


def test_a_large_value_is_cut_and_a_large_image_is_named(kernel):
    value = kernel.run("'a' * 50_000_000").of("execute_result")[0]["data"]["text/plain"]
    assert value.endswith(NOTICE + "\n")
    assert len(value) < MIB + 200
    shown = kernel.run(
        "from IPython.display import Image\n"
        "Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + b'0' * 9_000_000, format='png')"
    ).of("execute_result")[0]["data"]
    assert list(shown) == ["text/plain"]
    assert "image/png not shown: 11.4 MiB" in shown["text/plain"]


def test_an_error_with_a_huge_message_is_bounded_in_message_and_reply(kernel):
    ran = kernel.run("raise ValueError('x' * 20_000_000)")
    for content in (ran.of("error")[0], ran.reply):
        assert content["ename"] == "ValueError"
        assert len(content["evalue"]) < 5000
        assert sum(map(len, content["traceback"])) < 70_000


def test_what_cells_print_is_not_kept(kernel):
    kernel.run("print('kept' + 'alive')")
    ran = kernel.run("'kept' + 'alive' in str(get_ipython().history_manager.outputs)")
    assert ran.of("execute_result")[0]["data"]["text/plain"] == "False"


def test_an_interrupt_while_text_is_sent_costs_no_reply(kernel):
    for _ in range(20):
        msg_id = kernel.client.execute(
            "for i in range(10**9): print(i)", allow_stdin=False, stop_on_error=False
        )
        while True:
            message = kernel.client.get_iopub_msg(timeout=20)
            if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
                break
        os.killpg(kernel.process.pid, 2)
        reply = kernel.reply(msg_id)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert kernel.run("print('well')").text == "well\n"


def test_user_code_sees_the_paths_of_an_ordinary_kernel(kernel):
    ran = kernel.run("import sys, os, json\nprint(json.dumps([sys.path, dict(os.environ)]))")
    path, env = json.loads(ran.text)
    assert "" in path
    assert not set(PYTHON_PATH.split(os.pathsep)) & set(path)
    assert "PYTHONPATH" not in env


def test_start_brings_no_debugger_no_history_file_and_no_managers(kernel):
    ran = kernel.run(
        "import sys; [m for m in ('debugpy', 'sqlite3', 'jupyter_client.manager', 'matplotlib')"
        " if m in sys.modules]"
    )
    assert ran.of("execute_result")[0]["data"]["text/plain"] == "[]"
    assert not list(kernel.directory.rglob("history.sqlite"))
    late = kernel.run("import jupyter_client; jupyter_client.KernelManager.__module__")
    assert late.of("execute_result")[0]["data"]["text/plain"] == "'jupyter_client.manager'"


def test_a_thread_that_goes_on_is_cut_as_well(kernel):
    kernel.run(
        """
        import asyncio
        async def later():
            await asyncio.sleep(0)
            for _ in range(40): print('z' * 65_536)
            done.append(1)
        done = []
        task = asyncio.get_event_loop().create_task(later())
        """
    )
    ran = kernel.run("await asyncio.sleep(0.1); done")
    assert ran.of("execute_result")[0]["data"]["text/plain"] == "[1]"
    texts = []
    last = kernel.client.execute("1")
    while True:
        message = kernel.client.get_iopub_msg(timeout=20)
        if message["msg_type"] == "stream":
            texts.append(message["content"]["text"])
        elif message["content"].get("execution_state") == "idle":
            break
    kernel.reply(last)
    assert len("".join(texts)) < 2 * MIB


writes = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=200)))


@given(writes, st.integers(16, 600), st.booleans())
def test_below_the_limit_nothing_is_lost_above_it_the_bound_holds(parts, limit, flushes):
    output = CellOutput(BoundedOutput(limit))
    given = []
    for name, data in parts:
        given += output.add(name, data)
        if flushes:
            given += output.flush()
    given += output.finish()
    text = "".join(text for _, text in given)
    whole = b"".join(data for _, data in parts)
    assert output.bounded.total_bytes == len(whole)
    if output.bounded.truncated:
        assert text.endswith(notice(limit) + "\n")
        assert len(text) < 4 * limit + 300
    elif whole.isascii():
        assert text == whole.decode().replace("\0", "\\x00")


def test_a_character_on_the_border_of_the_head_is_cut_nowhere():
    for limit in range(16, 32):
        output = BoundedOutput(limit)
        text = output.feed("é".encode() * 100) + output.finish()
        assert "\\x" not in text.split("[...")[0]
        assert set(text.split("\n")[0]) == {"é"}


def test_a_million_small_writes_are_held_in_about_their_size():
    output = BoundedOutput(MIB)
    for _ in range(700_000):
        output.feed(b"x")
    assert len(output._held) + len(output._kept) < 600
    assert output.finish() == "x" * (700_000 - MIB // 4)


def test_what_is_cut_for_its_escapes_alone_is_spooled_too(tmp_path):
    output = BoundedOutput(400, lambda: str(tmp_path / "spool"))
    output.feed(b"\xff" * 300)
    assert str(tmp_path / "spool") in output.finish()
    assert (tmp_path / "spool").read_bytes() == b"\xff" * 300


def test_text_that_nobody_owns_is_sent_up_to_the_limit_and_then_no_more():
    output = LooseOutput(1000)
    given = []
    for _ in range(100):
        given += [*output.add("stdout", b"x" * 100), *output.flush()]
    text = "".join(text for _, text in given)
    assert text == "x" * 1000 + f"\n{notice(1000)}\n"


def test_outputs_of_two_executions_do_not_mix():
    sent = []
    outputs = Outputs(lambda header, name, text: sent.append((header["msg_id"], text)), 1000)
    a, b = {"msg_id": "a"}, {"msg_id": "b"}
    outputs.begin(a)
    outputs.begin(b)
    for _ in range(3):
        outputs.write(a, "stdout", b"A")
        outputs.write(b, "stdout", b"B")
    outputs.finish(a)
    outputs.finish(b)
    assert sent == [("a", "AAA"), ("b", "BBB")]


def test_bundles_keep_what_fits_and_name_what_does_not():
    big = "x" * (9 * MIB)
    kept = bounds.bound_bundle(
        {"text/plain": "p", "text/html": big, "application/json": {"a": [big]}, "image/png": "ok"},
        MIB,
    )
    assert set(kept) == {"text/plain", "image/png"}
    assert kept["text/plain"].startswith("p\n[text/html not shown: 9.0 MiB]")
    loop: list[Any] = []
    loop.append(loop)
    assert "application/json" not in bounds.bound_bundle({"application/json": loop}, MIB)


def test_a_reply_is_small_whatever_the_cell_left_in_it():
    reply = bounds.bound_reply(
        {
            "status": "ok",
            "payload": [{"source": "page", "data": {"text/plain": "x" * (5 * MIB)}}] * 40,
            "user_expressions": {"a": {"data": {"text/plain": "x" * (9 * MIB)}}},
        },
        MIB,
    )
    assert len(json.dumps(reply)) < 18 * MIB
