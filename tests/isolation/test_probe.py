"""``jupyter sandbox doctor --probe``: green where all defences are on, red for each that is off."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from jupyter_sandbox.cli.probe import ProbeFailed, attempts, calls, to_rows
from jupyter_sandbox.engines import bubblewrap_flags, docker_flags
from tests.attacks import attack

from ..conftest import BUBBLEWRAP, DOCKER, on_gvisor_too, text_of


def run_doctor(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_sandbox.cli.app", "doctor", "--probe", *words],
        capture_output=True,
        text=True,
        timeout=170,
    )


@pytest.mark.parametrize("engine_name", [DOCKER, BUBBLEWRAP])
def test_the_doctor_attacks_a_sandbox_and_prints_what_came_of_it(engine_name):
    done = run_doctor(f"--engine={engine_name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "attacks were contained" in done.stdout
    assert "FAILED" not in done.stdout
    for words in ("reach cloud metadata", "mount a file system", "EAGAIN after", "EROFS"):
        assert words in done.stdout


@pytest.mark.docker
def test_the_doctor_attacks_gvisor_and_expects_what_holds_there():
    done = run_doctor("--engine=docker", "--DockerEngine.oci_runtime=runsc")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tier      strongest" in done.stdout
    assert "answered by gVisor\n" in done.stdout
    assert "it ended; the next call works" in done.stdout
    assert "all 39 attacks were contained" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--DockerEngine.oci_runtim=runsc", "there is no setting DockerEngine.oci_runtim"),
        ("--DockerEngine.oci_runtime", "write --DockerEngine.oci_runtime=value"),
        ("--engin=docker", "unknown option --engin"),
    ],
)
def test_a_mistyped_setting_is_refused_and_nothing_else_is_attacked(words, said):
    done = run_doctor(words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


async def probed(api, port: int = 9, *, has_own_kernel: bool = False) -> dict[str, object]:
    conversation = await api.conversation()
    for tool, arguments in calls(port, has_own_kernel=has_own_kernel):
        result = await api.call(conversation, tool, **arguments)
    return {each.attack: each for each in attempts(text_of(result))}


def failed(found) -> set[str]:
    return {name for name, each in found.items() if not each.contained}


@on_gvisor_too
@attack("T01", "T05", "T06", "T12", "T13", "T14", "T15", "T27")
async def test_every_attack_is_contained(api, engine_name):
    found = await probed(api, has_own_kernel=engine_name == "gvisor")
    assert failed(found) == set()


@pytest.mark.docker
@pytest.mark.parametrize("engine_name", ["docker"], indirect=False)
async def test_a_kernel_that_only_claims_to_be_gvisor_is_seen(api, engine_name):
    found = await probed(api, has_own_kernel=True)
    assert failed(found) == {"make system calls that are not needed"}
    assert found["make system calls that are not needed"].got != "answered by gVisor"


def _docker_without(**changes):
    def isolation(settings):
        return {**_ISOLATION(settings), **changes}

    return isolation


_ISOLATION = docker_flags._isolation
_NAMESPACES = bubblewrap_flags._namespaces

# What of the docker engine's settings is taken away -> attacks that must be seen to succeed.
DOCKER_WITHOUT = {
    "seccomp": (
        {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
        {"make system calls that are not needed", "use the kernel's keys"},
    ),
    "no-new-privileges": (
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"gain rights by a setuid program"},
    ),
    "dropped capabilities": (
        {
            "CapAdd": [*docker_flags.CAPABILITIES, "SYS_ADMIN", "MKNOD"],
            "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
        },
        {"have capabilities of the host's root", "make a block device"},
    ),
}


@pytest.mark.docker
@pytest.mark.parametrize("engine_name", ["docker"], indirect=False)
@pytest.mark.parametrize("defence", DOCKER_WITHOUT)
async def test_a_defence_that_is_off_is_seen_on_docker(api, engine_name, defence, monkeypatch):
    changes, expected = DOCKER_WITHOUT[defence]
    monkeypatch.setattr(docker_flags, "_isolation", _docker_without(**changes))
    found = await probed(api)
    assert expected <= failed(found)
    rows = "\n".join(to_rows(list(found.values())))
    assert "were NOT contained" in rows


@pytest.mark.docker
@pytest.mark.parametrize("engine_name", ["docker"], indirect=False)
async def test_limits_that_are_missing_are_seen_on_docker(api, engine_name, monkeypatch):
    limits = docker_flags._limits

    def without(spec, settings):
        spec = replace(spec, resources=replace(spec.resources, processes=4000))
        return {**limits(spec, settings), "Ulimits": []}

    monkeypatch.setattr(docker_flags, "_limits", without)
    found = failed(await probed(api))
    assert {"make processes without number", "make a file without end"} <= found


@pytest.mark.bubblewrap
@pytest.mark.parametrize("engine_name", ["bubblewrap"], indirect=False)
async def test_a_sandbox_on_the_hosts_network_is_seen_and_nothing_is_sent(
    api, engine_name, monkeypatch, jp_http_port
):
    def without(spec, version):
        return [each for each in _NAMESPACES(spec, version) if each != "--unshare-net"]

    monkeypatch.setattr(bubblewrap_flags, "_namespaces", without)
    found = await probed(api, jp_http_port)
    assert {"find a network", "reach the Jupyter Server at 127.0.0.1"} <= failed(found)
    assert found["reach cloud metadata"].got == "not tried: there is a way out"
    assert found["resolve a name"].got == "not tried: there is a way out"


@pytest.mark.bubblewrap
@pytest.mark.parametrize("engine_name", ["bubblewrap"], indirect=False)
async def test_uploads_that_can_be_written_are_seen(api, engine_name, monkeypatch):
    mounts = bubblewrap_flags._mounts

    def without(spec, relocate):
        return ["--bind" if each == "--ro-bind" else each for each in mounts(spec, relocate)]

    monkeypatch.setattr(bubblewrap_flags, "_mounts", without)
    found = await probed(api)
    # Whose they are on the host may still refuse it, with another word than the mount's.
    assert found["write to the uploads"].got != "EROFS"
    assert found["put a link among the server's sockets"].got != "EROFS"


@pytest.mark.parametrize(
    "text", ["", "PROBE", "PROBE 3", "PROBE [[1]]", "PROBE []", "PROBE [[1,2,3,4,5]]"]
)
def test_no_report_is_no_success(text):
    with pytest.raises(ProbeFailed):
        attempts(text)


def test_what_a_sandbox_says_is_shown_on_one_line():
    rows = '["T01", "a\\u001b[31m\\nb", 3, {"x": 1}, "true"],' * 30
    found = attempts(f"PROBE [{rows[:-1]}]")
    assert not any(each.contained for each in found)
    assert all(line.isprintable() for row in to_rows(found) for line in row.split("\n"))
