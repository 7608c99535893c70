"""The conversation's Python kernel, through a real guest, a real relay and a real ipykernel."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import time
from pathlib import Path

import psutil
import pytest

from jupyter_sandbox.errors import ToolError, Unavailable
from jupyter_sandbox.models import Outcome
from jupyter_sandbox.sandbox.python_kernel import PythonKernel, describe_end

from .local_guest import LocalGuest, eventually

MIB = 1024 * 1024
LOST = "Variables and imports are lost; files are kept."


@pytest.fixture
def guest(short_dir):
    guest = LocalGuest(short_dir)
    yield guest
    guest.close()


async def run(
    kernel: PythonKernel, code: str, seconds: float = 60, limit: int = MIB, emit=lambda text: None
) -> Outcome:
    return await kernel.execute(code, seconds, emit, limit)


async def pid_of(kernel: PythonKernel) -> int:
    return int((await run(kernel, "import os; print(os.getpid())")).text)


async def test_variables_stay_from_cell_to_cell_and_values_are_shown(guest):
    async with guest.python() as kernel:
        assert (await run(kernel, "x = 20\nprint('set')")).text == "set\n"
        outcome = await run(kernel, "x + 1")
        assert (outcome.text, outcome.error, outcome.lost) == ("21\n", None, "")


async def test_output_is_emitted_while_the_cell_runs(guest):
    async with guest.python() as kernel:
        pieces: list[str] = []
        code = (
            "import time, os\nprint('first', flush=True)\n"
            "while not os.path.exists('go'): time.sleep(.01)"
        )
        cell = asyncio.ensure_future(run(kernel, code, emit=pieces.append))
        await eventually(lambda: pieces == ["first\n"])
        assert not cell.done()
        assert kernel.state == "busy"
        (guest.work / "go").touch()
        assert (await cell).text == "first\n"
        assert kernel.state == "idle"


async def test_a_hundred_callers_share_one_start(guest):
    async with guest.python() as kernel:
        await asyncio.gather(*(kernel.ensure_started() for _ in range(100)))
        pids = await asyncio.gather(*(pid_of(kernel) for _ in range(5)))
        assert len(set(pids)) == 1


async def test_cells_sent_at_once_run_one_after_the_other_each_with_its_own_output(guest):
    async with guest.python() as kernel:
        await run(kernel, "seen = []")
        outcomes = await asyncio.gather(
            *(run(kernel, f"seen.append({i})\nprint({i})\nif {i} == 3: 1/0") for i in range(20)),
        )
        assert [o.text.split("\n")[0] for o in outcomes] == [str(i) for i in range(20)]
        assert [o.error for o in outcomes if o.error] == ["ZeroDivisionError: division by zero"]
        assert (await run(kernel, "seen == list(range(20))")).text == "True\n"


async def test_an_error_names_itself_and_shows_its_traceback(guest):
    async with guest.python() as kernel:
        outcome = await run(kernel, "print('before')\nundefined_name")
        assert outcome.error == "NameError: name 'undefined_name' is not defined"
        assert outcome.text.startswith("before\n")
        assert "Traceback" in outcome.text
        assert "\x1b[" in outcome.text


async def test_reading_from_stdin_fails_at_once(guest):
    async with guest.python() as kernel:
        outcome = await run(kernel, "input()")
        assert outcome.error.startswith("StdinNotImplementedError")


PICTURE = """
from IPython.display import display
import base64
class Picture:
    def __init__(self, **bundle): self.bundle = bundle
    def _repr_mimebundle_(self, **_):
        return {k.replace("_", "/"): v for k, v in self.bundle.items()}
png = base64.b64encode(b"\\x89PNG\\r\\n\\x1a\\n" + b"0" * 100).decode()
"""


async def test_images_are_given_when_their_first_bytes_say_what_they_are(guest):
    async with guest.python() as kernel:
        await run(kernel, PICTURE)
        outcome = await run(kernel, "Picture(image_png=png, text_plain='<Figure>')")
        assert [i.media_type for i in outcome.images] == ["image/png"]
        assert outcome.images[0].data.startswith(b"\x89PNG")
        assert outcome.text == ""
        lie = await run(kernel, "Picture(image_jpeg=png, text_plain='plain')")
        assert lie.images == ()
        assert lie.text == "[image/jpeg not shown: its contents are of another type]\nplain\n"
        many = await run(kernel, "for _ in range(25): display(Picture(image_png=png))")
        assert len(many.images) == 20
        assert "only 20 images" in many.text


async def test_html_and_svg_are_left_out_in_favour_of_text(guest):
    async with guest.python() as kernel:
        await run(kernel, PICTURE)
        bundle = "{'text_html': '<script>', 'image_svg+xml': '<svg/>', 'text_plain': 'table'}"
        assert (await run(kernel, f"Picture(**{bundle})")).text == "table\n"


async def test_a_flood_is_cut_with_the_file_named_and_the_host_keeps_its_memory(guest):
    async with guest.python() as kernel:
        await run(kernel, "print('x' * 100_000_000)")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for code in (
            "print('x' * 100_000_000)",
            "import os; os.system('head -c 300000000 /dev/zero');",
            "for i in range(30): display('y' * 5_000_000)",
        ):
            outcome = await run(kernel, code, limit=100_000)
            assert outcome.truncated
            assert outcome.text.endswith("... output truncated (exceeded 100,000 bytes) ...\n")
            assert len(outcome.text) < 100_000 + 140_000
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 16 * 1024
        outcome = await run(kernel, "print('z' * 100_000)", limit=10_000)
        assert outcome.spool in outcome.text
        assert Path(outcome.spool).read_text() == "z" * 100_000 + "\n"


async def test_a_cell_that_goes_around_the_streams_is_bounded_by_the_host(guest):
    forge = """
    k = get_ipython().kernel
    for i in range(COUNT):
        k.session.send(k.iopub_socket, 'stream', {'name': 'stdout', 'text': 'x' * 1_000_000},
                       parent=k.get_parent('shell'))
    """
    async with guest.python() as kernel:
        outcome = await run(kernel, forge.replace("COUNT", "60").replace("\n    ", "\n"), limit=MIB)
        assert outcome.truncated
        assert len(outcome.text) < MIB + 200_000
        assert (await run(kernel, "print('on')")).text == "on\n"


async def test_hostile_messages_are_counted_and_the_reader_goes_on(guest):
    hostile = """
k = get_ipython().kernel
def send(*frames): k.iopub_socket.send_multipart([b'x', *frames])
def signed(*parts): send(b'<IDS|MSG>', k.session.sign(list(parts)), *parts)
deep = b'[' * 100_000 + b']' * 100_000
send(b'nonsense'); send(b'<IDS|MSG>'); send(*[b'a'] * 60); send(*[b'a'] * 500)
send(b'<IDS|MSG>', b'bad signature', b'{}', b'{}', b'{}', b'{}')
signed(b'{}', b'{}', b'{}', b'{}'); signed(b'[]', b'{}', b'{}', b'{}'); signed(b'{', b'', b'')
signed(b'{"msg_type": "stream"}', b'{}', b'{}', deep)
signed(b'{"msg_type": ["stream"]}', b'{}', b'{}', b'{}')
signed(b'{"msg_type": "stream", "msg_id": 5}', b'{"msg_id": {"a": 1}}', b'{}', b'{}')
signed(b'{"msg_type": "stream"}', b'{}', b'{}', b'[' + b'1,' * 2_000_000 + b'1]')
signed(b'{"msg_type": "stream"}', b'{}', b'{}', b'9' * 1_000_000)
import json
parent = json.dumps({'msg_id': k.get_parent('shell')['header']['msg_id']}).encode()
def forge(kind, content): signed(b'{"msg_type": "%s"}' % kind, parent, b'{}', content)
for content in (b'{"text": 5}', b'{"text": null}', b'{}', b'{"text": "\\ud800"}'):
    forge(b'stream', content)
for data in (b'5', b'null', b'{"image/png": 5}', b'{"image/png": "!!"}', b'{"text/plain": []}'):
    forge(b'display_data', b'{"data": ' + data + b'}')
forge(b'error', b'{"traceback": [5, null], "ename": []}')
signed(b'{"msg_type": "stream"}', b'{}', b'{}', b'{"text": "' + b'z' * 40_000_000 + b'"}')
print('survived')
"""
    async with guest.python() as kernel:
        outcome = await run(kernel, hostile)
        assert "survived" in outcome.text
        outcome.text.encode("utf-8")
        assert kernel._dispatcher.protocol_errors >= 8
        assert kernel.manager.sandbox_provisioner.relay.dropped >= 2  # parts, bytes
        assert (await run(kernel, "print('on')")).text == "on\n"


async def test_a_timeout_interrupts_the_cell_and_keeps_the_variables(guest):
    async with guest.python() as kernel:
        await run(kernel, "x = 5")
        outcome = await run(kernel, "import time\nprint('begun')\ntime.sleep(100)", seconds=0.5)
        assert outcome.timed_out
        assert outcome.duration_seconds < 5
        assert outcome.text.startswith("begun\n")
        assert outcome.text.endswith(
            "[cell timed out after 0.5 s]\n"
            "It was interrupted; the Python kernel and its variables are kept.\n"
        )
        assert (await run(kernel, "x")).text == "5\n"


async def test_a_cell_that_ignores_the_interrupt_is_ended_with_all_it_started(guest):
    async with guest.python() as kernel:
        first = await pid_of(kernel)
        code = (
            "import signal, subprocess, time\n"
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "p = subprocess.Popen(['setsid', 'sleep', '1000']); print(p.pid, flush=True)\n"
            "while True: time.sleep(1)"
        )
        outcome = await run(kernel, code, seconds=0.5)
        assert outcome.timed_out
        assert "did not react to an interrupt" in outcome.text
        assert LOST in outcome.text
        child = int(outcome.text.split()[0])
        await eventually(lambda: not psutil.pid_exists(child) and not psutil.pid_exists(first))
        after = await run(kernel, "1")
        assert after.lost == (
            "The Python kernel was restarted: a cell had run into its timeout and did not react "
            f"to an interrupt. {LOST}"
        )
        assert (await run(kernel, "1")).lost == ""


async def test_time_in_the_queue_does_not_count(guest):
    async with guest.python() as kernel:
        await kernel.ensure_started()
        first = asyncio.ensure_future(run(kernel, "import time; time.sleep(1.5)"))
        second = asyncio.ensure_future(run(kernel, "print('ran')", seconds=0.4))
        assert not (await first).interrupted
        outcome = await second
        assert (outcome.text, outcome.timed_out) == ("ran\n", False)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), 9)", "it had been killed (SIGKILL, often out of"),
        ("import os; os._exit(3)", "it had exited with code 3"),
        ("import ctypes; ctypes.string_at(1)", "it had crashed (SIGSEGV, often a fault in"),
    ],
)
async def test_a_kernel_that_dies_ends_the_cell_and_is_back_at_the_next_call(guest, code, how):
    async with guest.python() as kernel:
        await run(kernel, "x = 5; open('file', 'w').write('kept')")
        begun = time.monotonic()
        with pytest.raises(ToolError) as caught:
            await run(
                kernel, f"print('last words', flush=True)\nimport time; time.sleep(.05)\n{code}"
            )
        assert time.monotonic() - begun < 15  # not the cell's whole time
        assert caught.value.code == "kernel_died"
        message = caught.value.message
        assert message.startswith(f"The Python kernel ended while this cell ran: {how}")
        assert f"{LOST} The next call starts a new kernel." in message
        assert "last words" in message
        assert kernel.state == "dead"
        outcome = await run(kernel, "print(open('file').read(), 'x' in globals())")
        assert outcome.text == "kept False\n"
        assert outcome.lost.startswith(f"The Python kernel was restarted: {how}")


async def test_a_kernel_killed_between_two_cells_is_back_and_the_result_says_so(guest):
    async with guest.python() as kernel:
        pid = await pid_of(kernel)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not psutil.pid_exists(pid))
        outcome = await run(kernel, "print('on')")
        assert outcome.text == "on\n"
        assert "killed (SIGKILL" in outcome.lost


async def test_exit_in_a_cell_is_told_with_the_next_result(guest):
    async with guest.python() as kernel:
        assert (await run(kernel, "x = 1\nexit()")).error is None
        outcome = await run(kernel, "'x' in globals()")
        assert outcome.text == "False\n"
        assert "the code had called exit() or quit()" in outcome.lost


async def test_restart_gives_a_new_kernel_in_the_same_sandbox(guest):
    async with guest.python() as kernel:
        first = await pid_of(kernel)
        await kernel.restart()
        outcome = await run(kernel, "print(1)")
        assert "restarted on request" in outcome.lost
        assert await pid_of(kernel) != first
        assert not psutil.pid_exists(first)


async def test_interrupt_ends_the_running_cell_only(guest):
    async with guest.python() as kernel:
        await kernel.ensure_started()
        pieces: list[str] = []
        code = "import time\nprint(1, flush=True)\ntime.sleep(100)"
        running = asyncio.ensure_future(run(kernel, code, emit=pieces.append))
        queued = asyncio.ensure_future(run(kernel, "print('next')"))
        await eventually(lambda: pieces)
        await kernel.interrupt()
        outcome = await running
        assert outcome.interrupted
        assert outcome.error == "KeyboardInterrupt"
        assert (await queued).text == "next\n"


async def test_a_cancelled_call_stops_its_cell_also_when_it_had_not_begun(guest):
    async with guest.python() as kernel:
        await run(kernel, "done = []")
        code = "import time\nfor i in range(100): time.sleep(.1)\ndone.append({})"
        running = asyncio.ensure_future(run(kernel, code.format(1)))
        queued = asyncio.ensure_future(run(kernel, code.format(2)))
        await eventually(lambda: kernel.is_busy and kernel._dispatcher._running)
        for task in (queued, running):
            task.cancel()
        begun = time.monotonic()
        assert (await run(kernel, "done")).text == "[]\n"
        assert time.monotonic() - begun < 8


async def test_a_running_cell_blocks_neither_the_loop_nor_files(guest):
    async with guest.python() as kernel:
        await kernel.ensure_started()
        cell = asyncio.ensure_future(run(kernel, "while True: pass", seconds=1))
        slowest = 0.0
        while not cell.done():
            before = time.monotonic()
            await kernel.manager.sandbox_access.link.request("control", {"op": "status"})
            slowest = max(slowest, time.monotonic() - before)
            await asyncio.sleep(0.01)
        assert slowest < 1.0
        assert (await cell).timed_out


async def test_the_next_server_process_adopts_the_kernel_with_its_variables(guest):
    async with guest.python() as kernel:
        await run(kernel, "x = 'old'")
        pid = await pid_of(kernel)
    assert psutil.pid_exists(pid)
    async with guest.link("h2") as link:
        adopted = guest.kernel(link)
        outcome = await run(adopted, "x")
        assert (outcome.text, outcome.lost) == ("'old'\n", "")
        assert await pid_of(adopted) == pid
        await adopted.shutdown()


async def test_a_kernel_is_adopted_while_an_old_cell_still_runs(guest):
    async with guest.python() as kernel:
        await kernel.ensure_started()
        code = "import time, os\nwhile not os.path.exists('go'): time.sleep(.01)\nx = 'done'"
        cell = asyncio.ensure_future(run(kernel, code))
        await eventually(lambda: kernel.is_busy and kernel._dispatcher._running)
    with pytest.raises(Unavailable):
        await cell
    async with guest.link("h2") as link:
        adopted = guest.kernel(link)
        async with asyncio.timeout(10):
            await adopted.ensure_started()
        (guest.work / "go").touch()
        assert (await run(adopted, "x")).text == "'done'\n"
        await adopted.shutdown()


async def test_a_death_while_no_server_was_there_is_told_by_the_next(guest):
    async with guest.python() as kernel:
        pid = await pid_of(kernel)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not psutil.pid_exists(pid))
    async with guest.link("h2") as link:
        adopted = guest.kernel(link)
        assert "killed (SIGKILL" in (await run(adopted, "1")).lost
        await adopted.shutdown()


async def test_a_connection_that_breaks_while_a_cell_runs_ends_the_wait_with_the_cell(guest):
    async with guest.python() as kernel:
        await kernel.ensure_started()
        code = "import time, os\nwhile not os.path.exists('go'): time.sleep(.01)"
        cell = asyncio.ensure_future(run(kernel, code))
        await eventually(lambda: kernel.is_busy and kernel._dispatcher._running)
        for stream in list(kernel.manager.sandbox_access.link._all):
            if stream.target.startswith("unix:"):
                stream.close()
        await asyncio.sleep(0.3)
        (guest.work / "go").touch()
        async with asyncio.timeout(20):
            await cell
        assert (await run(kernel, "print('on')")).text == "on\n"


async def test_detach_leaves_no_task_and_no_socket_and_the_directory_is_private(guest):
    tasks = asyncio.all_tasks()
    async with guest.link() as link:
        kernel = guest.kernel(link)
        await run(kernel, "1")
        assert stat.S_IMODE(guest.private.stat().st_mode) & 0o077 in (0, 0o055)
        assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in guest.private.iterdir())
        await kernel.detach()
        await kernel.detach()
        assert list(guest.private.iterdir()) == []
        with pytest.raises(Unavailable):
            await run(kernel, "1")
    await eventually(lambda: asyncio.all_tasks() <= tasks)


async def test_restarts_leave_no_descriptor_behind(guest):
    async with guest.python() as kernel:
        await run(kernel, "1")
        await kernel.restart()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await kernel.restart()
            await run(kernel, "1")
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 4)


async def test_nothing_of_the_servers_environment_reaches_the_kernel(guest, monkeypatch):
    monkeypatch.setenv("SERVER_SECRET", "hush")
    async with guest.python() as kernel:
        await kernel.manager.start_kernel(env={"CALLER_SECRET": "hush"})
        outcome = await run(kernel, "import os; [k for k in os.environ if 'SECRET' in k]")
        assert outcome.text == "[]\n"


async def test_a_kernel_that_cannot_start_says_why(guest):
    async with guest.link() as link:
        kernel = PythonKernel(
            link,
            sandbox_id="0" * 12,
            private_dir=guest.private,
            env={"PYTHONHOME": "/nowhere"},  # Python itself cannot start
        )
        with pytest.raises(Unavailable) as caught:
            await run(kernel, "1")
        assert "did not start: it had exited with code 1" in caught.value.message
        await kernel.detach()
        assert list(guest.private.iterdir()) == []


def test_ends_are_told_in_words():
    assert describe_end(None) == "it had ended"
    assert describe_end(-15) == "it had been ended by SIGTERM"
    assert describe_end(-200) == "it had been ended by signal 200"
