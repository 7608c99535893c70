"""The extension: reads the settings, adds the routes, has the parts built and let go of.

They are built (``building.py``) on the loop at the server's start, or by the first request,
whichever is earlier, so that an engine that is slow or down delays no page.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.auth import IdentityProvider, PasswordIdentityProvider
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import url_path_join
from traitlets import Bool, Enum, Float, TraitError, Unicode, default, validate
from traitlets import Callable as TraitCallable
from traitlets import Set as TraitSet

from ..directories import (
    choose_runtime_dir,
)
from ..engines.bubblewrap import BubblewrapEngine
from ..engines.docker import DockerEngine
from ..engines.selection import Choice, choose
from ..errors import Unavailable
from ..models import Caller
from ..policy.access_text import POLICY_NAME
from ..policy.certificates import BundleRefused
from ..policy.ownership import CONSTANT_OWNER, owner_of
from ..routes import ROUTES
from ..sandbox.client_settings import read_trusted
from ..services import Services
from ..settings import (
    SandboxEgress,
    SandboxLifecycle,
    SandboxLimits,
    SandboxPreviews,
    SandboxResources,
)
from ..settings.checks import require_within
from .building import Plan, build, let_go
from .log_guard import guard_logs

_LONGEST_DAYS = 100 * 366

_FIRST_CALL = """the first call to a sandbox:
    id=$(curl -s -H "Authorization: token $JUPYTER_TOKEN" -X POST %s \\
         | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
    curl -s -H "Authorization: token $JUPYTER_TOKEN" %s/$id/tools/bash \\
         -d '{"command": "echo hello"}'"""


class SandboxApp(ExtensionApp):
    """A private Linux machine for every conversation with an AI assistant."""

    name = "jupyter_sandbox"
    load_other_extensions = True
    classes = [  # noqa: RUF012
        SandboxLimits,
        SandboxLifecycle,
        SandboxResources,
        SandboxEgress,
        SandboxPreviews,
        DockerEngine,
        BubblewrapEngine,
    ]

    engine = Enum(
        ("auto", "docker", "bubblewrap"),
        default_value="auto",
        help="What makes sandboxes. `auto` takes Docker (or Podman) when its socket answers and "
        "it has the image, else the embedded bubblewrap.",
    ).tag(config=True)
    data_dir = Unicode(
        help="Directory for the database and shared files; only this user may enter it. "
        "Default: `jupyter_sandbox` in Jupyter's data directory."
    ).tag(config=True)
    runtime_dir = Unicode(
        help="Directory for sockets; short, because a socket's path has at most 107 bytes. "
        "Default: `jupyter-sandbox` in $XDG_RUNTIME_DIR, /run (as root) or /tmp."
    ).tag(config=True)
    db_url = Unicode(
        help="SQLAlchemy URL of the database. Default: SQLite in `data_dir`. Servers that share "
        "it share conversations."
    ).tag(config=True)
    master_key_file = Unicode(
        help="File of the keyring that all stored files are encrypted under; only this user may "
        "read it. Default: `master.key` in `data_dir`, made at the first start. Whoever loses it "
        "loses the files. $JUPYTER_SANDBOX_MASTER_KEY takes its place."
    ).tag(config=True)
    audit_keep_days = Float(
        365.0,
        help="Rows of the audit log that are older are removed, in days; `jupyter sandbox audit "
        "verify` goes on to check what is left. 0: none ever is. A row takes some 300 bytes; "
        "export what is to be kept for longer.",
    ).tag(config=True)
    allow_plaintext_on_disk = Bool(
        False,
        help="Let uploads lie on a disk in plain while their sandbox lives, where there is no "
        "tmpfs for them (`runtime_dir` or /dev/shm). Without it such a server does not start.",
    ).tag(config=True)
    show_workspace = Bool(
        False,
        help="Show the workspace of a running sandbox as a folder beside `uploads` and `outputs` "
        "in the conversation's contents, readable and writable. Users see what the assistant works "
        "with, and can change it under its hands; looking starts no sandbox.",
    ).tag(config=True)
    trust_outputs = Bool(
        False,
        help="Pass what sandbox kernels display, and what notebooks store, as it is: widgets, "
        "JavaScript, HTML with scripts. JupyterLab runs it as the user, so whatever runs in a "
        "sandbox can act as the user on this server. Only the bounds of size stay.",
    ).tag(config=True)
    start_timeout_seconds = Float(
        60.0, help="How long a new sandbox may take until its guest answers, in seconds."
    ).tag(config=True)
    extra_ca_bundle = Unicode(
        help="PEM file of certificate authorities that programs in sandboxes trust besides the "
        "public ones: of a company's mirrors, or of a proxy that opens TLS. Whoever holds their "
        "keys can read what sandboxes fetch."
    ).tag(config=True)
    owner_mode = Enum(
        ("auto", "constant", "username"),
        default_value="auto",
        help="Whose conversations are: `auto` takes one constant owner on a server with a single "
        "token or password (its user names are random), and the user name under JupyterHub or "
        "another identity provider of several users.",
    ).tag(config=True)

    policy_file = Unicode(
        help="File of flags and grants: JSON that switches the sandbox on or off and gives or "
        "takes chat access by user or group. A change counts at once. Default: `policy.json` in "
        "`data_dir`; without that file the sandbox is on, for everybody."
    ).tag(config=True)
    administrators = TraitSet(
        Unicode(),
        help="Owners who may read and change flags and grants over REST. Under JupyterHub its "
        "administrators may too, and so may whoever logs in on a server with a single owner.",
    ).tag(config=True)
    groups_hook = TraitCallable(
        None,
        allow_none=True,
        help="Function of a handler that gives the names of the caller's groups, for grants; it "
        "is called at every request, on the server's loop. Default: the groups that JupyterHub "
        "tells of the user.",
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._services: Services | None = None
        self._building: asyncio.Lock | None = None
        self._sandbox_engine: Any = None

    @validate("audit_keep_days")
    def _some_days(self, proposal: Any) -> Any:
        return require_within(proposal, 0, _LONGEST_DAYS)

    @default("data_dir")
    def _default_data_dir(self) -> str:
        return str(Path(jupyter_data_dir()) / "jupyter_sandbox")

    @default("runtime_dir")
    def _default_runtime_dir(self) -> str:
        return str(choose_runtime_dir(Path(self.data_dir), os.environ))

    def initialize_settings(self) -> None:
        """Give handlers a way to this app; a wrong setting fails here, at the server's start."""
        guard_logs(self.log, *([] if self.serverapp is None else [self.serverapp.log]))
        self._limits = SandboxLimits(parent=self).to_limits()
        self._lifecycle = SandboxLifecycle(parent=self).to_lifecycle()
        resources = SandboxResources(parent=self)
        self._resources = resources.to_resources()
        self._host_free_bytes = resources.host_free_bytes
        self._egress = SandboxEgress(parent=self)
        try:
            self._certificates = read_trusted(self.extra_ca_bundle)
        except BundleRefused as exc:
            raise TraitError(f"SandboxApp.extra_ca_bundle: {self.extra_ca_bundle} {exc}") from None
        self._previews = SandboxPreviews(parent=self)
        self.settings["jupyter_sandbox"] = self

    def initialize_handlers(self) -> None:
        """Add the routes below the server's base URL (the base class prefixes them)."""
        self.handlers.extend(ROUTES)

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Build the parts at the server's start and say which engine is used and why."""
        try:
            services = await self.ready()
        except Unavailable as exc:  # requests try again, and are told too
            self.log.error("sandbox: does not work yet: %s (%s)", exc.message, exc.detail)
            return
        url = url_path_join(serverapp.connection_url, "sandbox/api/conversations")
        self.log.info("sandbox engine: %s", services.engine_reason)
        self.log.info(_FIRST_CALL, url, url)

    @property
    def upload_bytes(self) -> int:
        """The largest upload, for handlers that bound a body before the parts are built."""
        return self._limits.upload_bytes

    async def ready(self) -> Services:
        """Give the parts; the first caller builds them."""
        if self._services is not None:
            return self._services
        if self._building is None:
            self._building = asyncio.Lock()
        async with self._building:
            if self._services is None:
                self._services = await self._build()
        return self._services

    async def stop_extension(self) -> None:
        """Let go of all sandboxes; they run on and the next server finds them."""
        services, self._services = self._services, None
        if services is not None:
            await let_go(services)

    async def _build(self) -> Services:
        assert self.serverapp is not None
        assert self.serverapp.event_logger is not None
        data_dir = Path(self.data_dir)
        plan = Plan(
            data_dir=data_dir,
            runtime_dir=Path(self.runtime_dir),
            db_url=self.db_url or f"sqlite:///{data_dir / 'sandbox.db'}",
            master_key_file=self.master_key_file,
            policy_file=Path(self.policy_file or data_dir / POLICY_NAME),
            audit_keep_days=self.audit_keep_days,
            allow_plaintext_on_disk=self.allow_plaintext_on_disk,
            start_timeout_seconds=self.start_timeout_seconds,
            show_workspace=self.show_workspace,
            trust_outputs=self.trust_outputs,
            html_scripts=self._previews.html_scripts,
            limits=self._limits,
            lifecycle=self._lifecycle,
            resources=self._resources,
            host_free_bytes=self._host_free_bytes,
            egress=self._egress,
            certificates=self._certificates,
            choose_engine=lambda: self._choose_engine(data_dir),
            caller_of=self._caller_of,
            events=self.serverapp.event_logger,
            log=self.log,
        )
        return await build(plan)

    async def _choose_engine(self, data_dir: Path) -> Choice:
        if self._sandbox_engine is not None:  # tests put one here
            return Choice(self._sandbox_engine, True, f"{self._sandbox_engine.name}: given")
        docker = DockerEngine(parent=self)
        bubblewrap = BubblewrapEngine(parent=self, **self._state_dir(data_dir))
        return await choose(self.engine, docker, bubblewrap)

    def _state_dir(self, data_dir: Path) -> dict[str, Path]:
        """Give the embedded engine's directory, unless an administrator has set one."""
        is_set = "state_dir" in self.config.BubblewrapEngine
        return {} if is_set else {"state_dir": data_dir / "bubblewrap"}

    def _caller_of(self, handler: JupyterHandler) -> Caller:
        user, provider = handler.current_user, type(handler.identity_provider)
        single_secret = provider in (IdentityProvider, PasswordIdentityProvider) or (
            provider.__name__ == "LegacyIdentityProvider"
        )
        owner = owner_of(user.username, single_secret, self.owner_mode)
        of_hub = getattr(user, "hub_user", None) or {}  # jupyterhub.singleuser.extension
        groups = (
            of_hub.get("groups") or () if self.groups_hook is None else self.groups_hook(handler)
        )
        is_administrator = (
            owner == CONSTANT_OWNER or bool(of_hub.get("admin")) or owner in self.administrators
        )
        return Caller(owner, frozenset(groups), is_administrator)
