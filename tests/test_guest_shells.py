"""The guest's shells without an engine: keepers, spares, and the state that goes from one to the next."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import psutil
import pytest
from sandbox_guest import protocol
from sandbox_guest.bash import exported

from jupyter_sandbox.sandbox.bash_kernel import BashKernel
from tests.attacks import attack
from tests.local_guest import LocalGuest, eventually


@pytest.fixture
def guest(short_dir):
    guest = LocalGuest(short_dir)
    yield guest
    guest.close()


class Shell:
    """Commands, one after the other."""

    def __init__(self, link) -> None:
        self.kernel = BashKernel(link)

    async def __call__(self, command: str, timeout_seconds: float = 20.0):
        return await self.kernel.execute(
            str(uuid.uuid4()),
            command,
            timeout_seconds=timeout_seconds,
            limit_bytes=1024 * 1024,
            emit=lambda text: None,
        )


@contextlib.asynccontextmanager
async def shell_of(guest):
    async with guest.link() as link:
        yield Shell(link)


def processes(guest) -> list[psutil.Process]:
    return psutil.Process(guest._process.pid).children(recursive=True)


async def test_a_command_that_kills_its_parent_ends_and_the_next_one_runs(guest):
    async with shell_of(guest) as run:
        outcome = await run("kill -KILL $PPID; sleep 1000")
        assert outcome.exit_code == 137
        assert (await run("echo fine")).text == "fine\n"
        await eventually(lambda: not any("sleep" in p.name() for p in processes(guest)))


async def test_signals_to_the_parent_that_a_command_sends_by_mistake_do_nothing(guest):
    async with shell_of(guest) as run:
        outcome = await run("kill $PPID; kill -INT $PPID; kill -HUP $PPID; echo still here")
        assert (outcome.text, outcome.exit_code) == ("still here\n", 0)


@attack("T20")
async def test_a_command_that_stops_its_parent_is_ended_by_its_timeout(guest):
    async with shell_of(guest) as run:
        outcome = await run("kill -STOP $PPID; sleep 1000", timeout_seconds=0.5)
        assert outcome.timed_out
        assert (await run("echo fine")).text == "fine\n"


async def test_waiting_shells_that_are_killed_are_replaced(guest):
    async with shell_of(guest) as run:
        await run("true")
        waiting = [p for p in processes(guest) if p.name() == "bash"]  # of this guest alone
        assert waiting
        for process in waiting:
            process.kill()
        await eventually(
            lambda: not any(p.is_running() and p.status() != "zombie" for p in waiting)
        )
        for n in range(4):
            assert (await run(f"echo {n}")).text == f"{n}\n"


async def test_a_command_knows_its_own_process_id_and_ignores_no_signal(guest):
    async with shell_of(guest) as run:
        assert (await run("[ $$ = $BASHPID ] && echo own")).text == "own\n"
        ignored = (await run("grep SigIgn /proc/self/status")).text.split()[1]
        assert int(ignored, 16) & 0x7FFFFFFF == 0


async def test_a_command_inherits_nothing_but_its_three_descriptors(guest):
    async with shell_of(guest) as run:
        await run("export A=1")  # the next shells are started with a state of their own
        for _ in range(3):
            assert (await run("ls /proc/self/fd | wc -l")).text == "4\n"  # and the one of ls


async def test_processes_do_not_grow_with_the_calls(guest):
    async with shell_of(guest) as run:
        for n in range(5):
            await run(f"export N={n}; cd /; cd /tmp")
        await asyncio.gather(*(run("sleep 0.2") for _ in range(12)))
        await run("true")
        await eventually(lambda: len(processes(guest)) <= 6)  # server, 2 keepers, 2 spares
        open_files = psutil.Process(guest._process.pid).children()[0].num_fds()
        for _ in range(10):
            await run("true")
        assert psutil.Process(guest._process.pid).children()[0].num_fds() <= open_files + 2


@pytest.mark.parametrize(
    ("export", "show"),
    [
        ("export A='x\"y$z`w\\\\v'", 'printf %s "$A"'),
        ("export A=$'two\\nlines\\ttab'", 'printf %s "$A"'),
        ("export A=$'\\xff\\xfe'", 'printf %s "$A" | od -An -tx1'),
        ("export LD_LIBRARY_PATH=/nowhere", "printf %s $LD_LIBRARY_PATH"),
        ("export IFS=,", 'printf %s "$IFS"'),
        ("export A; A=1", "printf %s $A"),
        ("declare -rx A=1", "printf %s $A"),
        ("cd /usr; cd /tmp", "cd - ; pwd"),
        ("export -n LANG; unset LANG", "echo ${LANG-unset}"),
        ("cd $HOME; ln -sfn /usr link; cd link", "echo $PWD"),
    ],
)
async def test_exported_variables_and_the_directory_carry_over(guest, export, show):
    async with shell_of(guest) as run:
        here = (await run(f"{export}; {show}")).text
        await run(export)
        assert (await run(show)).text == here
        assert here


async def test_what_a_starting_shell_would_run_is_run_by_no_shell_of_ours(guest):
    async with shell_of(guest) as run:
        await run("echo 'echo intruder' > rc; export BASH_ENV=$PWD/rc")
        assert (await run("echo only")).text == "only\n"
        assert (await run("bash -c 'echo inner'")).text == "intruder\ninner\n"


async def test_requests_on_one_stream_do_not_wait_for_each_other(guest):
    async with guest.link() as link:
        stream = await link.open(protocol.BASH)
        for name, code in (("slow", "sleep 1; echo slow"), ("quick", "echo quick")):
            header = {"msg_id": name, "msg_type": "execute_request"}
            await stream.send(
                {"channel": "shell", "header": header, "metadata": {}, "content": {"code": code}}
            )
        ended = []
        async with asyncio.timeout(20):
            while len(ended) < 2:
                body = (await stream.receive()).body
                if body["header"]["msg_type"] == "execute_reply":
                    ended.append(body["parent_header"]["msg_id"])
        assert ended == ["quick", "slow"]
        stream.close()


async def test_busy_is_said_while_a_silent_command_runs(guest):
    async with guest.link() as link:
        stream = await link.open(protocol.BASH)
        header = {"msg_id": "m", "msg_type": "execute_request"}
        await stream.send(
            {"channel": "shell", "header": header, "metadata": {}, "content": {"code": "sleep 5"}}
        )
        async with asyncio.timeout(2):
            body = (await stream.receive()).body
        assert body["content"] == {"execution_state": "busy"}
        stream.close()


def test_the_text_of_an_environment_reads_back_as_it():
    env = {"A": 'q"$`\\', "B": "two\nlines", "EMPTY": "", "PATH": "/bin"}
    read = exported.to_environment(exported.to_text(env, "/work"))
    assert read == {**env, "PWD": "/work"}


@pytest.mark.parametrize(
    "line",
    [
        'declare -x LD_PRELOAD="x.so"',
        'declare -x BASH_ENV="rc"',
        'declare -x IFS=","',
        'declare -x SHLVL="7"',
        'declare -rx A="1"',
        "declare -x A=$'a\\nb'",
        "declare -x UNSET",
        'declare -x A="cut',
    ],
)
def test_a_state_that_is_no_plain_environment_is_sourced(line):
    assert exported.to_environment(b'declare -x B="1"\n') == {"B": "1"}
    assert exported.to_environment(b'declare -x B="1"\n' + line.encode() + b"\n") is None
