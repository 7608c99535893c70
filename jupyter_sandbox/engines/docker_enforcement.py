"""What holds a container: read back where its processes can be seen, else as it was asked for.

Takes what the service says of the container; asks the kernel, never the service. With gVisor the
processes of a sandbox are not the host's: of them only the control group can be seen.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models import Enforced, Strength
from .docker_flags import own_kernel
from .read_back import in_order, read_back, watched

_ASKED = "asked of the service; out of sight from here"


def enforcement(found: dict[str, Any], default_runtime: str) -> tuple[Enforced, ...]:
    """Give what holds a running container, from what ``inspect`` says of it."""
    runtime = found["HostConfig"].get("Runtime") or default_runtime
    if runtime == "oci":  # as Podman calls whatever it is configured with
        runtime = default_runtime
    kernel = own_kernel(runtime)
    asked = _asked(found["HostConfig"])
    pid = int(found["State"]["Pid"])
    seen = read_back(pid) if is_visible(pid, found["Id"]) else []
    if kernel:  # seen is the process that plays the kernel, not what runs in it
        inside = ("file_size", "open_files", "system_calls", "capabilities", "user", "network")
        seen = [each for each in seen if each.limit not in inside]
        seen = [*map(_of_the_whole, seen), Enforced("system_calls", Strength.ENFORCED, kernel)]
        seen.append(Enforced("user", Strength.ENFORCED, "root inside is root of that kernel only"))
    return in_order([_kernel(runtime, kernel), _disk(found["HostConfig"]), *seen, *asked])


def is_visible(pid: int, container_id: str) -> bool:
    """Say whether the process of that number here is the container's: the service may be far."""
    try:
        return pid > 0 and container_id in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _of_the_whole(enforced: Enforced) -> Enforced:
    """Say that these limits end the sandbox: the host sees its kernel, no process inside."""
    if enforced.limit not in ("memory", "processes"):
        return enforced
    mechanism = f"{enforced.mechanism}; the whole sandbox ends at it"
    return replace(enforced, strength=Strength.WEAKER, mechanism=mechanism)


def _kernel(runtime: str, kernel: str) -> Enforced:
    if kernel:
        return Enforced("kernel", Strength.ENFORCED, kernel, runtime)
    return Enforced("kernel", Strength.WEAKER, "the host's kernel is shared", runtime)


def _disk(config: dict[str, Any]) -> Enforced:
    size = (config.get("StorageOpt") or {}).get("size", "")
    if size:
        return Enforced("disk", Strength.ENFORCED, "project quota of the layer", f"{size} bytes")
    return watched("the container's layer grows in the service's directory")


def _asked(config: dict[str, Any]) -> list[Enforced]:
    memory, with_swap = config.get("Memory") or 0, config.get("MemorySwap") or 0
    filtered = any(option.startswith("seccomp=") for option in config.get("SecurityOpt") or ())
    ulimits = {limit["Name"]: limit["Hard"] for limit in config.get("Ulimits") or ()}
    values = {
        "memory": f"{memory} bytes" if memory else "",
        "swap": f"{with_swap - memory} bytes" if with_swap > 0 else "",
        "processors": f"{config['NanoCpus'] / 1e9:g}" if config.get("NanoCpus") else "",
        "processes": str(config["PidsLimit"]) if config.get("PidsLimit") else "",
        "file_size": f"{ulimits['fsize']} bytes" if "fsize" in ulimits else "",
        "open_files": str(ulimits.get("nofile", "")),
        "system_calls": "our list" if filtered else "",
        "capabilities": " ".join(sorted(config.get("CapAdd") or ())),
        "network": "none" if config.get("NetworkMode") == "none" else "",
    }
    return [Enforced(n, Strength.ENFORCED, _ASKED, v) for n, v in values.items() if v]
