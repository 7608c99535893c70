"""The engine for containers: Docker, or Podman behind the same API, with any OCI runtime.

Low-level SDK calls on threads of their own. Containers are found by name and label; there is no
other memory of them. The rule: nothing is ever executed in, or copied into or out of, a container.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from traitlets import Float, Unicode

from ..errors import Unavailable
from ..models import Enforced
from . import host_counters
from .base import EngineHealth, EngineSandbox, EngineState, EngineUsage, Resources, SandboxSpec
from .blocking import BlockingCalls
from .configurable import ConfigurableEngine
from .docker_disk import Place, find_place, has_project_quota, measure
from .docker_flags import (
    LABEL_ID,
    LABEL_SERVER,
    DockerSettings,
    container_name,
    create_config,
    own_kernel,
)
from .docker_sockets import can_limit_sockets, limit_sockets
from .group_limits import (
    GroupEvents,
    read_group_cpu_seconds,
    read_group_events,
    read_group_memory_bytes,
)

_THREADS = 8
_REMOVE_SECONDS = 30.0
_POLL_SECONDS = 0.05
_RUNTIME_OF_PODMAN = (  # it would take a request's runtime for its own, and say nothing
    "Podman runs containers with the OCI runtime of its own configuration only: set `runtime` in "
    "its containers.conf and leave DockerEngine.oci_runtime empty"
)
_USER_PROCESSES = 32_768  # the kernel's usual bound for all of a host
_STATES = {"running": EngineState.RUNNING, "paused": EngineState.PAUSED}
_P = ParamSpec("_P")
_T = TypeVar("_T")
_Sandboxes = list[EngineSandbox]  # inside the class, "list" is the verb


class DockerEngine(ConfigurableEngine):
    """Sandboxes as containers of a Docker or Podman service."""

    name = "docker"

    image = Unicode(
        "jupyter-sandbox:latest",
        help="""Image of the sandboxes: Python 3.9 or later as "python3", and the writable
        directories. A digest (name@sha256:...) pins it. It is never pulled; `jupyter sandbox
        build-image` builds the default one.""",
    ).tag(config=True)

    docker_host = Unicode(
        "",
        help="""Address of the service, e.g. unix:///run/user/1000/podman/podman.sock. Empty (the
        default): DOCKER_HOST of the environment, else the usual socket. The service must see the
        server's file system: its sockets are mounted into containers.""",
    ).tag(config=True)

    oci_runtime = Unicode(
        "",
        help="""OCI runtime by the name the service knows it, e.g. "runsc" for gVisor, which keeps
        sandboxes off the host's kernel at the cost of speed. Empty: the service's default.""",
    ).tag(config=True)

    request_timeout_seconds = Float(
        60.0,
        min=1.0,
        help="""Seconds that one request to the service may take. A start takes 0.3 s on an idle
        host and several when many start at once.""",
    ).tag(config=True)

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._calls = BlockingCalls("jsbx-docker", _THREADS)
        self._connecting = threading.Lock()  # guards the three below; requests go on without it
        self._client: Any = None
        self._settings: DockerSettings | None = None
        self._facts: dict[str, Any] = {}
        self._places: dict[str, Place] = {}  # of running sandboxes, as long as we look at them

    def __repr__(self) -> str:
        return f"<DockerEngine {self.docker_host or 'default'} image={self.image}>"

    async def check(self) -> EngineHealth:
        """Ask the service for its version and for the image."""
        try:
            return await self._ask(self._check)
        except Unavailable as exc:
            return EngineHealth(False, exc.message)

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """See ``Engine.start``. Two requests when there is nothing yet."""
        return await self._calls.run_or_undo(
            lambda: self._understand(self._start, spec), lambda: self._remove(spec.sandbox_id)
        )

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """See ``Engine.inspect``."""
        return await self._ask(self._inspect, sandbox_id)

    async def list(self, server_id: str) -> _Sandboxes:
        """See ``Engine.list``. One request, and one for each container that has ended."""
        return await self._ask(self._list, server_id)

    async def pause(self, sandbox_id: str) -> None:
        """See ``Engine.pause``."""
        await self._ask(self._change, sandbox_id, "pause", EngineState.PAUSED)

    async def resume(self, sandbox_id: str) -> None:
        """See ``Engine.resume``."""
        await self._ask(self._change, sandbox_id, "unpause", EngineState.RUNNING)

    async def remove(self, sandbox_id: str) -> None:
        """See ``Engine.remove``."""
        await self._ask(self._remove, sandbox_id)

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """See ``Engine.enforcement``."""
        return await self._ask(self._enforcement, sandbox_id)

    async def usage(self, sandbox_id: str, *, disk: bool = False) -> EngineUsage:
        """See ``Engine.usage``. One request at the first time, and one more for the disk.

        What is on the disk is measured in the container's layer where the server may look into it
        (as root); else the service is asked, which counts no files and no deleted ones.
        """
        return await self._ask(self._usage, sandbox_id, disk)

    async def recipe(self) -> str:
        """See ``Engine.recipe``: the settings, and the id of the image as it is now."""
        return f"{await super().recipe()} {await self._calls.run(self._image_id)}"

    def disk_paths(self) -> Sequence[Path]:
        """See ``Engine.disk_paths``: the service's directory, where it is on this host."""
        root = Path(str(self._facts.get("DockerRootDir", "")))
        return (root,) if root.is_absolute() and root.exists() else ()

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._calls.close()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def _ask(self, verb: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._calls.run(lambda: self._understand(verb, *args, **kwargs))

    # On the engine's threads

    def _understand(self, verb: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        from .docker_errors import understood

        with understood():
            return verb(*args, **kwargs)

    def _start(self, spec: SandboxSpec) -> EngineSandbox:
        client = self._connect()
        _require_sources(spec)
        name = container_name(spec.sandbox_id)
        deadline = time.monotonic() + _REMOVE_SECONDS
        while True:
            with self._translated("start the sandbox"):
                try:
                    assert self._settings is not None
                    config = create_config(spec, self._settings)
                    made = client.create_container_from_config(config, name)
                except _api_error() as exc:
                    # Podman says 500 for a name that is taken.
                    if exc.status_code != 409 and "already in use" not in str(exc.explanation):
                        raise
                    there = self._adopt(spec)
                    if there is not None:
                        return there
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_POLL_SECONDS)  # it is being removed
                    continue
            self._start_created(spec, made["Id"])
            # Not asked for: a third request would cost 5 ms and tell nothing new.
            return EngineSandbox(
                sandbox_id=spec.sandbox_id,
                server_id=spec.server_id,
                state=EngineState.RUNNING,
                handle=made["Id"][:12],
                created_at=datetime.now(UTC),
            )

    def _adopt(self, spec: SandboxSpec) -> EngineSandbox | None:
        """Give the container that has the name; None once an ended one is out of the way."""
        sandbox_id = spec.sandbox_id
        found = self._look(sandbox_id)
        status = found["State"]["Status"] if found is not None else "removing"
        if found is not None and status in _STATES:
            return _to_sandbox(found)
        if found is not None and status == "created":
            self._start_created(spec, found["Id"])
            return self._inspect(sandbox_id)
        if status != "removing":
            self._remove(sandbox_id)
        return None

    def _start_created(self, spec: SandboxSpec, container_id: str) -> None:
        client = self._connect()
        try:
            with self._translated("start the sandbox"):
                client.start(container_name(spec.sandbox_id))
        except BaseException:
            with contextlib.suppress(Unavailable):
                self._remove(spec.sandbox_id)
            raise
        limit_sockets(container_id, spec.resources.socket_bytes)

    def _look(self, sandbox_id: str) -> dict[str, Any] | None:
        client = self._connect()
        with self._translated("look at the sandbox"):
            try:
                found: dict[str, Any] = client.inspect_container(container_name(sandbox_id))
            except _api_error() as exc:
                if exc.status_code == 404:
                    return None
                raise
        return found

    def _inspect(self, sandbox_id: str) -> EngineSandbox | None:
        found = self._look(sandbox_id)
        return None if found is None or LABEL_ID not in _labels(found) else _to_sandbox(found)

    def _list(self, server_id: str) -> _Sandboxes:
        client = self._connect()
        with self._translated("list the sandboxes"):
            rows = client.containers(all=True, filters={"label": f"{LABEL_SERVER}={server_id}"})
        found = []
        for row in rows:
            if row["State"] in _STATES:
                found.append(
                    EngineSandbox(
                        sandbox_id=row["Labels"].get(LABEL_ID, ""),
                        server_id=server_id,
                        state=_STATES[row["State"]],
                        handle=row["Id"][:12],
                        created_at=datetime.fromtimestamp(row["Created"], UTC),
                    )
                )
            else:
                ended = self._inspect(row["Labels"].get(LABEL_ID, ""))
                found += [ended] if ended is not None else []
        return found

    def _image_id(self) -> str:
        client = self._connect()
        with self._translated("look at the image"):
            return str(client.inspect_image(self.image)["Id"])

    def _change(self, sandbox_id: str, verb: str, wanted: EngineState) -> None:
        client = self._connect()
        with self._translated(f"{verb} the sandbox"):
            try:
                getattr(client, verb)(container_name(sandbox_id))
            except _api_error() as exc:
                there = self._inspect(sandbox_id)
                if there is None or there.state is EngineState.EXITED:
                    raise Unavailable("there is no running sandbox", detail=str(exc)) from exc
                if there.state is not wanted:
                    raise

    def _enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        from .docker_enforcement import enforcement

        found = self._look(sandbox_id)
        if found is None or found["State"]["Status"] not in _STATES:
            raise Unavailable("there is no running sandbox")
        return enforcement(found, self._runtime())

    def _usage(self, sandbox_id: str, disk: bool) -> EngineUsage:
        place = self._places.get(sandbox_id)
        if place is None:
            found = self._look(sandbox_id)
            if found is None or found["State"]["Status"] not in _STATES:
                return EngineUsage()
            place = self._places[sandbox_id] = find_place(found)
        events = read_group_events(place.pid) if place.pid else GroupEvents()
        cpu_seconds = read_group_cpu_seconds(place.pid) if place.pid else None
        if cpu_seconds is None and not disk:
            cpu_seconds = self._cpu_seconds(sandbox_id)
        usage = EngineUsage(
            *(None, None, events.memory_kills, events.processes_refused),
            *(cpu_seconds, read_group_memory_bytes(place.pid) if place.pid else None),
        )
        if not disk:
            return usage
        measured = measure(place)
        if measured is None:
            return replace(usage, disk_bytes=self._size(sandbox_id))
        return replace(usage, disk_bytes=measured.size_bytes, disk_entries=measured.entries)

    def _cpu_seconds(self, sandbox_id: str) -> float | None:
        """Ask the service, for containers whose processes are out of sight."""
        client = self._connect()
        with self._translated("measure the sandbox"):
            said = client.stats(container_name(sandbox_id), stream=False, one_shot=True)
        total = ((said.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
        return total / 1e9 if isinstance(total, int) and total else None

    def _size(self, sandbox_id: str) -> int | None:
        client = self._connect()
        with self._translated("measure the sandbox"):
            rows = client.containers(
                all=True, size=True, filters={"label": f"{LABEL_ID}={sandbox_id}"}
            )
        return int(rows[0].get("SizeRw") or 0) if rows else None

    def _remove(self, sandbox_id: str) -> None:
        self._places.pop(sandbox_id, None)
        client = self._connect()
        deadline = time.monotonic() + _REMOVE_SECONDS
        if self._settings is not None and self._settings.has_own_kernel:
            # A paused gVisor takes no KILL: the service would wait 10 s for its end and give up.
            with contextlib.suppress(Unavailable), self._translated("thaw the sandbox"):
                client.unpause(container_name(sandbox_id))
        while True:
            with self._translated("remove the sandbox"):
                try:
                    client.remove_container(container_name(sandbox_id), force=True, v=True)
                    return
                except _api_error() as exc:
                    if exc.status_code == 404:
                        return
                    # 409: somebody else is removing it. Wait until it is gone.
                    if exc.status_code != 409 or time.monotonic() > deadline:
                        raise
            time.sleep(_POLL_SECONDS)

    def _check(self) -> EngineHealth:
        import docker.errors

        client = self._connect()
        with self._translated("say what it is"):
            version = client.version()
            self._facts = client.info()
            try:
                client.inspect_image(self.image)
            except docker.errors.ImageNotFound:
                image_there = False
            else:
                image_there = True
        product, number = _product(version)
        answers = f"{product} {number} answers at {_address(client)}"
        if not image_there:
            from .docker_errors import missing_image

            return EngineHealth(False, f"{answers}, but {missing_image(self.image)}", number)
        return EngineHealth(True, answers, number, _warnings(self._facts, self.oci_runtime))

    def _connect(self) -> Any:
        with self._connecting:
            if self._client is None:
                # Imported here: 0.15 s that a server without Docker need not spend.
                import docker

                with self._translated("answer"):
                    environment = docker.utils.kwargs_from_env()
                    if self.docker_host:
                        environment = {"base_url": self.docker_host}
                    client = docker.APIClient(
                        version="auto", timeout=self.request_timeout_seconds, **environment
                    )
                    self._facts = client.info()
                is_podman = "BuildahVersion" in self._facts  # no further request, which may be slow
                if is_podman and self.oci_runtime:
                    client.close()
                    raise Unavailable(_RUNTIME_OF_PODMAN, status=503)
                driver, root = self._facts.get("Driver"), str(self._facts.get("DockerRootDir", ""))
                self._settings = DockerSettings(
                    image=self.image,
                    oci_runtime=self.oci_runtime,
                    reads_profile_files=is_podman,
                    user_processes=_user_processes() if is_podman else 0,
                    has_own_kernel=bool(own_kernel(self._runtime())),
                    api_version=tuple(int(part) for part in client.api_version.split(".")),
                    limits_swap=bool(self._facts.get("SwapLimit", True)),
                    limits_disk=driver == "overlay2" and has_project_quota(root, _mountinfo()),
                )
                self._client = client
            return self._client

    def _runtime(self) -> str:
        return self.oci_runtime or str(self._facts.get("DefaultRuntime", ""))

    def _translated(self, doing: str) -> contextlib.AbstractContextManager[None]:
        from .docker_errors import translated

        return translated(doing, self.image)


def _mountinfo() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/self/mountinfo").read_text()
    return ""


def _require_sources(spec: SandboxSpec) -> None:
    """Refuse a mount whose source is missing: Podman would make it where Docker refuses."""
    for source in (spec.dial_dir, *(mount.source for mount in spec.mounts)):
        if not source.exists():
            raise Unavailable("a directory to be mounted is not there", detail=str(source))


def _api_error() -> type[Any]:
    import docker.errors

    return docker.errors.APIError  # type: ignore[no-any-return]


def _to_sandbox(found: dict[str, Any]) -> EngineSandbox:
    state = found["State"]
    known = _STATES.get(state["Status"], EngineState.EXITED)
    return EngineSandbox(
        sandbox_id=_labels(found).get(LABEL_ID, ""),
        server_id=_labels(found).get(LABEL_SERVER, ""),
        state=known,
        handle=found["Id"][:12],
        created_at=datetime.fromisoformat(found["Created"][:19] + "+00:00"),
        exit_code=state.get("ExitCode") if known is EngineState.EXITED else None,
        out_of_memory=bool(state.get("OOMKilled")),
        ends_at_limits=bool(own_kernel(found["HostConfig"].get("Runtime") or "")),
    )


def _labels(found: dict[str, Any]) -> dict[str, str]:
    return found["Config"].get("Labels") or {}


def _product(version: dict[str, Any]) -> tuple[str, str]:
    names = [part.get("Name", "") for part in version.get("Components") or []]
    product = "Podman" if any("Podman" in name for name in names) else "Docker"
    return product, str(version["Version"]).partition("+")[0]


def _user_processes() -> int:
    """Give a limit of processes that any service here can give its containers."""
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return _USER_PROCESSES if most == resource.RLIM_INFINITY else min(most, _USER_PROCESSES)


def _address(client: Any) -> str:
    """Give the address without credentials; the SDK writes unix sockets as http+docker."""
    url = str(client.base_url)
    if url.startswith("http+docker"):
        adapter = client.get_adapter(url)
        return str(getattr(adapter, "socket_path", "its socket"))
    return url.rpartition("@")[2].rpartition("//")[2]


def _warnings(facts: dict[str, Any], oci_runtime: str) -> tuple[str, ...]:
    limits = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "processor time"}
    absent = [what for key, what in limits.items() if facts.get(key) is False]
    found = [f"the service cannot limit {what}" for what in absent]
    options = " ".join(facts.get("SecurityOptions") or ())
    runtime = oci_runtime or facts.get("DefaultRuntime", "")
    has_own_users = "rootless" in options or "userns" in options
    if runtime in ("runc", "crun") and not has_own_users:
        found.append(
            f"root in a sandbox is root of the host's kernel ({runtime}); a rootless service, "
            "userns-remap or DockerEngine.oci_runtime='runsc' is stronger"
        )
    if own_kernel(runtime):
        return tuple(found)
    if str(facts.get("CgroupVersion", "")) == "1" and not can_limit_sockets():
        found.append(
            "buffers of TCP and UDP are not limited: only a server that is root can, with control "
            "groups of version 1"
        )
    user = "the user that their root is on the host" if has_own_users else "root of this host"
    found += host_counters.warnings(user, Resources(), bounds_inotify=False)
    found += host_counters.files_warning(Resources())
    return tuple(found)
