"""The container that is asked for, as data."""

import json
from pathlib import Path

import pytest

from jupyter_sandbox.engines.base import Mount, Resources, SandboxSpec
from jupyter_sandbox.engines.docker_flags import (
    DockerSettings,
    container_name,
    create_config,
    own_kernel,
)
from jupyter_sandbox.engines.seccomp_json import profile
from jupyter_sandbox.engines.seccomp_rules import ALLOCATING

SPEC = SandboxSpec(
    sandbox_id="0123456789ab",
    server_id="fe",
    dial_dir=Path("/run/jsbx/dial"),
    mounts=(Mount(Path("/srv/bundle"), "/opt/jupyter-sandbox"),),
    guest_argv=("{python}", "-m", "sandbox_guest"),
    env={"A": "1"},
    resources=Resources(
        memory_bytes=2**30, cpus=1.5, processes=100, shm_bytes=4096, tmp_bytes=8192
    ),
)


def host_config(**settings: object) -> dict:
    return create_config(SPEC, DockerSettings("image", **settings))["HostConfig"]


def test_nothing_but_the_guest_runs_and_it_is_pid_1():
    config = create_config(SPEC, DockerSettings("image@sha256:00"))
    assert config["Entrypoint"] == ["python3", "-m", "sandbox_guest"]
    assert config["Cmd"] == []
    assert config["HostConfig"]["Init"] is False
    assert config["Image"] == "image@sha256:00"


def test_it_is_found_by_name_and_labels():
    labels = create_config(SPEC, DockerSettings("image"))["Labels"]
    assert labels == {"jupyter-sandbox.id": "0123456789ab", "jupyter-sandbox.server": "fe"}
    assert container_name(SPEC.sandbox_id) == "jsbx-0123456789ab"


def test_the_environment_is_the_specs_and_no_more():
    assert create_config(SPEC, DockerSettings("image"))["Env"] == ["A=1"]


def test_it_has_no_network_no_shared_ipc_and_no_log():
    config = host_config()
    assert config["NetworkMode"] == "none"
    assert config["IpcMode"] == "private"
    assert config["LogConfig"]["Type"] == "none"
    assert config["RestartPolicy"]["Name"] == "no"


def test_it_has_eight_capabilities_and_gains_none():
    config = host_config()
    assert config["CapDrop"] == ["ALL"]
    assert sorted(config["CapAdd"]) == sorted(
        ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "FSETID", "KILL", "SETFCAP"]
    )
    no_new_privileges, seccomp = config["SecurityOpt"]
    assert no_new_privileges == "no-new-privileges"
    assert json.loads(seccomp.removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"
    assert config["Privileged"] is False


@pytest.mark.parametrize("name", ["UsernsMode", "PidMode", "UTSMode", "Devices", "Binds"])
def test_it_never_asks_for_anything_of_the_hosts(name: str):
    assert name not in host_config()


def test_every_mount_is_read_only_and_private():
    mounts = {mount["Target"]: mount for mount in host_config()["Mounts"]}
    del mounts["/dev/pts"]  # of the next test
    ours = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}  # else the service's, writable
    assert set(mounts) == {"/opt/jupyter-sandbox", "/run/jupyter-sandbox/dial"} | ours
    assert all(Path(mounts[target]["Source"]).is_file() for target in ours)
    assert all(mount["ReadOnly"] is True for mount in mounts.values())
    assert {mount["BindOptions"]["Propagation"] for mount in mounts.values()} == {"rprivate"}
    assert mounts["/run/jupyter-sandbox/dial"]["Source"] == "/run/jsbx/dial"


def test_its_terminals_are_few_and_no_volume_is_left_of_them():
    (mount,) = [each for each in host_config()["Mounts"] if each["Target"] == "/dev/pts"]
    assert mount["Type"] == "volume"
    assert "Source" not in mount  # without a name: it goes with the container
    options = mount["VolumeOptions"]["DriverConfig"]["Options"]
    assert (options["type"], "max=64" in options["o"].split(",")) == ("devpts", True)
    for settings in ({"has_own_kernel": True}, {"reads_profile_files": True}):
        assert "/dev/pts" not in [each["Target"] for each in host_config(**settings)["Mounts"]]


def test_the_limits_are_those_of_the_spec():
    config = host_config()
    assert config["Memory"] == config["MemorySwap"] == 2**30
    assert config["NanoCpus"] == 1_500_000_000
    assert config["PidsLimit"] == 100
    assert config["ShmSize"] == 4096
    assert "size=8192" in config["Tmpfs"]["/tmp"]
    limits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in config["Ulimits"]}
    assert limits == {
        "nofile": (8192, 8192),
        "core": (0, 0),
        "fsize": (5 * 1024**3, 5 * 1024**3),
        "sigpending": (1024, 1024),
        "msgqueue": (409_600, 409_600),
    }


def test_a_kernel_that_does_not_count_swap_is_not_asked_to_limit_it():
    assert "MemorySwap" not in host_config(limits_swap=False)
    assert host_config(limits_swap=False)["Memory"] == 2**30


@pytest.mark.parametrize(("version", "private"), [((1, 40), False), ((1, 41), True)])
def test_the_control_group_namespace_is_private_where_the_api_knows_it(version, private):
    config = host_config(api_version=version)
    assert config.get("CgroupnsMode") == ("private" if private else None)


@pytest.mark.parametrize(
    ("runtime", "own"), [("runsc", True), ("runsc-kvm", True), ("crun", False)]
)
def test_a_kernel_of_its_own_is_known_by_the_runtimes_name(runtime: str, own: bool):
    assert bool(own_kernel(runtime)) is own


def test_podman_is_given_the_path_of_the_same_profile():
    option = host_config(reads_profile_files=True)["SecurityOpt"][1]
    text = Path(option.removeprefix("seccomp=")).read_text()
    assert json.loads(text) == profile(ALLOCATING), "write json.dumps(it, indent=1) anew"


def test_podman_is_asked_for_no_more_processes_than_the_host_can_give():
    assert {"Name": "nproc", "Soft": 96, "Hard": 96} in host_config(user_processes=96)["Ulimits"]


def test_a_kernel_of_its_own_gets_tasks_for_itself():
    assert host_config(has_own_kernel=True)["PidsLimit"] == 256 + 8 * 100


@pytest.mark.parametrize("runtime", ["", "runsc"])
def test_another_oci_runtime_is_used_only_when_asked_for(runtime: str):
    assert host_config(oci_runtime=runtime).get("Runtime", "") == runtime
