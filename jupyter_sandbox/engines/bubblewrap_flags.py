"""The arguments of bubblewrap for one sandbox, each with its why. Pure: looks at nothing.

Source: https://github.com/containers/bubblewrap/blob/main/bwrap.xml. The order matters: bubblewrap
does the mounts in the order of the arguments, so what lies inside something comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from .base import DIAL_TARGET, SandboxSpec
from .host_view import HostView
from .private_files import HOME, PYTHON, UID, USER, VENV, PrivateFiles

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def create_arguments(
    spec: SandboxSpec,
    view: HostView,
    files: PrivateFiles,
    *,
    version: tuple[int, ...],
    relocate: Callable[[Path], Path] = lambda path: path,
    terminals: Path | None = None,
) -> list[str]:
    """Give the options for bubblewrap, without its program name and the command.

    Parameters
    ----------
    version : tuple of int
        Of bubblewrap, e.g. ``(0, 11, 0)``.
    relocate : callable
        Gives where a host path can be reached by the user that runs bubblewrap.
    terminals : Path, optional
        A devpts of the sandbox's own. None: bubblewrap makes one, with all terminals of the host.
    """
    return [
        *_namespaces(spec, version),
        *_environment(spec, view),
        *_system(spec, view, relocate),
        *(("--dev-bind", str(terminals), "/dev/pts") if terminals is not None else ()),
        *_writable(spec, files, relocate),
        *_mounts(spec, relocate),
        # What is left of / and /dev is a tmpfs without a size: nothing may be written into them.
        *("--remount-ro", "/dev"),
        *("--remount-ro", "/"),
        *("--chdir", spec.workdir),
    ]


def guest_command(spec: SandboxSpec) -> list[str]:
    """Give the command of PID 1 inside."""
    return [PYTHON if part == "{python}" else part for part in spec.guest_argv]


def environment(spec: SandboxSpec, view: HostView) -> dict[str, str]:
    """Give the whole environment of PID 1: the spec's, and what makes the software inside work."""
    scripts = [str(path) for path in view.python.scripts]
    path = [f"{VENV}/bin", f"{HOME}/.local/bin", *scripts, _SYSTEM_PATH]
    made = {
        "PATH": ":".join(path),
        "HOME": HOME,
        "USER": USER,
        "LOGNAME": USER,
        "VIRTUAL_ENV": VENV,
    }
    # The host's authorities also for libraries that bring a list of their own (pip, requests,
    # node): behind an intercepting proxy only the host's list is complete.
    trusted = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
    certificates = {name: view.certificates for name in trusted if view.certificates}
    return {**certificates, **spec.env, **made}


def _namespaces(spec: SandboxSpec, version: tuple[int, ...]) -> list[str]:
    arguments = [
        "--unshare-user",  # root inside any namespace is nobody outside
        "--unshare-pid",  # sees and signals only its own processes; they all end with PID 1
        "--unshare-net",  # no interface but loopback
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",  # old kernels have none; without /sys there is little to see
        *("--uid", str(UID)),  # an ordinary user inside, whatever the host user is
        *("--gid", str(UID)),
        *("--cap-drop", "ALL"),
        *("--hostname", spec.hostname),
        "--new-session",  # no controlling terminal to push input into (CVE-2017-5226)
        "--as-pid-1",  # the guest reaps; it must see all processes as its descendants
        # No --die-with-parent: sandboxes outlive a crash or restart of the server.
    ]
    if version >= (0, 8):
        # No further user namespaces: they open much of the kernel to unprivileged code.
        arguments.append("--disable-userns")
    return arguments


def _environment(spec: SandboxSpec, view: HostView) -> list[str]:
    arguments = ["--clearenv"]  # nothing of the server's: it holds tokens
    for name, value in environment(spec, view).items():
        arguments += ["--setenv", name, value]
    return arguments


def _system(spec: SandboxSpec, view: HostView, relocate: Callable[[Path], Path]) -> list[str]:
    sizes = {"/tmp": spec.resources.tmp_bytes, "/dev/shm": spec.resources.shm_bytes}
    arguments = ["--proc", "/proc", "--dev", "/dev"]  # its own processes; null, zero, random, tty
    for target, size in sizes.items():
        # In memory (and counted to the memory limit) until the size; sticky as everywhere.
        arguments += ["--perms", "1777", "--size", str(size), "--tmpfs", target]
    for link, path in view.links:
        arguments += ["--symlink", link, path]
    for shown in view.read_only:  # after /tmp: a virtual environment may lie there
        arguments += ["--ro-bind", str(relocate(shown)), str(shown)]
    for mask in view.masks:
        arguments += ["--perms", "0555", "--size", "4096", "--tmpfs", str(mask)]
        arguments += ["--remount-ro", str(mask)]
    return arguments


def _writable(
    spec: SandboxSpec, files: PrivateFiles, relocate: Callable[[Path], Path]
) -> list[str]:
    # On disk: the home and /var/tmp may grow larger than memory.
    private = {HOME: files.home, "/var/tmp": files.var_tmp}
    private |= {target: files.writable(target) for target in spec.writable_dirs}
    arguments = []
    for target, source in private.items():
        arguments += ["--bind", str(relocate(source)), target]
    return arguments


def _mounts(spec: SandboxSpec, relocate: Callable[[Path], Path]) -> list[str]:
    mounts: Mapping[str, Path] = {mount.target: mount.source for mount in spec.mounts}
    arguments = []
    for target, source in {**mounts, DIAL_TARGET: spec.dial_dir}.items():
        # Connecting to a socket works on a read-only mount; making or replacing one does not.
        arguments += ["--ro-bind", str(relocate(source)), target]
    return arguments
