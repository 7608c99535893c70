"""The arguments of bubblewrap, as data."""

from itertools import pairwise
from pathlib import Path

import pytest

from jupyter_sandbox.engines import bubblewrap_flags
from jupyter_sandbox.engines.base import Mount, Resources, SandboxSpec
from jupyter_sandbox.engines.host_python import HostPython
from jupyter_sandbox.engines.host_view import HostView
from jupyter_sandbox.engines.private_files import PrivateFiles

PYTHON = HostPython(
    executable=Path("/opt/python/bin/python3.11"),
    trees=(Path("/opt/python"), Path("/tmp/venv")),
    packages=(Path("/tmp/venv/lib/python3.11/site-packages"),),
    scripts=(Path("/tmp/venv/bin"),),
    version="3.11",
)
VIEW = HostView(
    read_only=(Path("/usr"), Path("/opt/python"), Path("/tmp/venv"), Path("/etc/ssl/certs")),
    links=(("usr/bin", "/bin"),),
    masks=(Path("/tmp/venv/etc/jupyter"),),
    python=PYTHON,
    certificates="/etc/ssl/certs/ca-certificates.crt",
)
SPEC = SandboxSpec(
    sandbox_id="0123456789ab",
    server_id="fe",
    dial_dir=Path("/run/jsbx/dial"),
    mounts=(Mount(Path("/srv/bundle"), "/opt/jupyter-sandbox"),),
    guest_argv=("{python}", "-m", "sandbox_guest"),
    env={"A": "1", "PATH": "/evil", "PIP_CERT": "/own.pem"},
    resources=Resources(shm_bytes=4096, tmp_bytes=8192),
)


def create(version: tuple[int, ...] = (0, 11, 0), **options: object) -> list[str]:
    return bubblewrap_flags.create_arguments(
        SPEC, VIEW, PrivateFiles.beneath(Path("/data/0123456789ab")), version=version, **options
    )


def targets(arguments: list[str], flag: str) -> dict[str, str]:
    """Give target to source of all mounts of one kind."""
    return {arguments[i + 2]: arguments[i + 1] for i, word in enumerate(arguments) if word == flag}


@pytest.mark.parametrize("kind", ["user", "pid", "net", "ipc", "uts"])
def test_every_namespace_is_its_own(kind: str):
    assert f"--unshare-{kind}" in create()


def test_no_capability_no_terminal_and_no_death_with_the_server():
    arguments = create()
    assert ("--cap-drop", "ALL") in pairwise(arguments)
    assert "--new-session" in arguments
    assert "--die-with-parent" not in arguments
    assert "--share-net" not in arguments


def test_the_guest_is_pid_1_as_an_ordinary_user():
    arguments = create()
    assert "--as-pid-1" in arguments
    assert ("--uid", "1000") in pairwise(arguments)
    assert bubblewrap_flags.guest_command(SPEC) == [
        *("/home/sandbox/venv/bin/python", "-m", "sandbox_guest")
    ]


@pytest.mark.parametrize(
    ("version", "forbidden"), [((0, 7, 9), False), ((0, 8, 0), True), ((0, 11, 0), True)]
)
def test_user_namespaces_inside_are_forbidden_where_bubblewrap_can(version, forbidden):
    assert ("--disable-userns" in create(version)) is forbidden


def test_only_private_directories_are_writable():
    assert targets(create(), "--bind") == {
        "/home/sandbox": "/data/0123456789ab/home",
        "/var/tmp": "/data/0123456789ab/var-tmp",
        "/workspace": "/data/0123456789ab/dir-workspace",
        "/mnt/user-data/outputs": "/data/0123456789ab/dir-mnt%2Fuser-data%2Foutputs",
    }


def test_what_is_left_of_the_root_is_read_only_after_all_mounts():
    arguments = create()
    last_mount = max(i for i, word in enumerate(arguments) if "bind" in word or word == "--tmpfs")
    assert arguments.index("/", last_mount) == len(arguments) - 3
    assert ("--remount-ro", "/dev") in pairwise(arguments)


def test_mounts_of_the_spec_are_read_only():
    shown = targets(create(), "--ro-bind")
    assert shown["/opt/jupyter-sandbox"] == "/srv/bundle"
    assert shown["/run/jupyter-sandbox/dial"] == "/run/jsbx/dial"


def test_nothing_of_the_hosts_etc_is_shown_but_what_is_listed():
    shown = [path for path in targets(create(), "--ro-bind") if path.startswith("/etc")]

    assert shown == ["/etc/ssl/certs"]


def test_a_python_below_tmp_is_mounted_over_the_private_tmp():
    arguments = create()
    assert arguments.index("/tmp") < arguments.index("/tmp/venv")


def test_jupyters_configuration_beside_the_libraries_is_masked_after_they_are_shown():
    arguments = create()
    mask = arguments.index("/tmp/venv/etc/jupyter")
    assert arguments[mask - 1] == "--tmpfs"
    assert arguments.index("/tmp/venv") < mask
    assert arguments[mask + 1 : mask + 3] == ["--remount-ro", "/tmp/venv/etc/jupyter"]


@pytest.mark.parametrize(("target", "size"), [("/tmp", "8192"), ("/dev/shm", "4096")])
def test_memory_file_systems_have_a_size(target: str, size: str):
    arguments = create()
    index = arguments.index(target)
    assert arguments[index - 5 : index] == ["--perms", "1777", "--size", size, "--tmpfs"]


def test_the_environment_is_cleared_and_path_is_ours():
    arguments = create()
    assert arguments.index("--clearenv") < arguments.index("--setenv")
    environment = bubblewrap_flags.environment(SPEC, VIEW)
    assert environment["PATH"].startswith("/home/sandbox/venv/bin:")
    assert "/evil" not in environment["PATH"]
    assert environment["A"] == "1"
    assert environment["HOME"] == "/home/sandbox"


def test_the_hosts_certificates_serve_unless_the_spec_says_otherwise():
    environment = bubblewrap_flags.environment(SPEC, VIEW)
    assert environment["SSL_CERT_FILE"] == "/etc/ssl/certs/ca-certificates.crt"
    assert environment["PIP_CERT"] == "/own.pem"


def test_hidden_sources_are_taken_from_where_they_were_staged():
    def relocate(path: Path) -> Path:
        return Path("/stage") / path.relative_to("/")

    arguments = create(relocate=relocate)
    sources = [*targets(arguments, "--ro-bind").values(), *targets(arguments, "--bind").values()]
    assert all(source.startswith("/stage/") for source in sources)
    assert "/opt/python" in targets(arguments, "--ro-bind")


def test_writable_directories_never_share_a_place():
    files = PrivateFiles.beneath(Path("/data"))
    names = ["/a-b", "/a/b", "/a--b", "/a/-b", "/a-/b", "/home", "/etc"]
    places = {files.writable(name) for name in names}
    assert len(places) == len(names)
    assert places.isdisjoint({files.home, files.var_tmp})
