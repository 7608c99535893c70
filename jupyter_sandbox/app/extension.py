"""The extension: reads the settings, adds the routes, has the parts built and let go of.

They are built (``building.py``) on the loop at the server's start, or by the first request,
whichever is earlier, so that an engine that is slow or down delays no page.

The rule: with a wrong setting, a wrong policy file or a directory that cannot be used nothing is
built, and every route says so. Jupyter takes an extension that fails while it is linked or loaded
for one with default settings, or for none; so nothing raises there (``settings/problems.py``).
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
from traitlets import Bool, Enum, Float, Unicode, default, observe, validate
from traitlets import Callable as TraitCallable
from traitlets import Set as TraitSet
from traitlets.config.loader import Config

from ..conversations.access_file import AccessFile
from ..directories import choose_runtime_dir
from ..engines.bubblewrap import BubblewrapEngine
from ..engines.docker import DockerEngine
from ..engines.selection import Choice, choose
from ..errors import Misconfigured, Unavailable
from ..models import Caller, Limits
from ..policy.access_text import POLICY_NAME
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
from ..settings.problems import why_wrong
from . import checking
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
        60.0, min=0.1, help="How long a new sandbox may take until its guest answers, in seconds."
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
        "takes chat access by user or group. A change counts at once. One that is named here must "
        "exist. Default: `policy.json` in `data_dir`; without it the sandbox is on, for everybody."
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
        self._refused: dict[str, str] = {}  # settings of this class, with the reason
        self._problems: list[str] = []
        self._logged: tuple[str, ...] = ()
        super().__init__(**kwargs)
        self._services: Services | None = None
        self._building: asyncio.Lock | None = None
        self._access: AccessFile | None = None
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

    @observe("runtime_dir")
    def _runtime_dir_changed(self, change: Any) -> None:
        """Make nothing: ``JupyterApp`` makes the directory as soon as it is named."""

    def _load_config(
        self, cfg: Config, section_names: Any = None, traits: dict[str, Any] | None = None
    ) -> None:
        """Take each setting by itself; what is refused is remembered, and raises nothing.

        ``find_problems`` tells of it: raised here, it would end in a log as a warning.
        """
        known = self.traits(config=True)
        for name, value in self._find_my_config(cfg).items():
            if name not in known:
                continue
            self._refused[name] = why_wrong(known[name], value)
            if not self._refused[name]:
                own = Config({type(self).__name__: {name: value}})
                try:
                    super()._load_config(own, section_names, traits)
                except Exception as exc:  # a TraitError; a ValueError for one that is given twice
                    self._refused[name] = str(exc) or repr(exc)

    def _link_jupyter_server_extension(self, serverapp: Any) -> None:
        """See ``ExtensionApp``: read all settings."""
        try:
            super()._link_jupyter_server_extension(serverapp)
        except Exception as exc:
            self.log.exception("sandbox: the settings could not be read")
            self._problems.append(f"the settings could not be read: {exc}")

    def initialize_settings(self) -> None:
        """Give handlers a way to this app, whose settings may be wrong."""
        self.settings["jupyter_sandbox"] = self
        assert self.serverapp is not None
        guard_logs(self.log, self.serverapp.log)
        # Those that were linked after us have brought their files, such as jupyter_lab_config.py.
        self.update_config(self.serverapp.config)
        try:
            self._problems += self.find_wrong_settings()
        except Exception as exc:  # a bug of ours: raised here, it would end in a log as a warning
            self.log.exception("sandbox: the settings could not be checked")
            self._problems.append(f"the settings could not be checked: {exc!r}")
        if self._problems:
            return
        self._certificates = read_trusted(self.extra_ca_bundle)
        self._limits = SandboxLimits(parent=self).to_limits()
        self._lifecycle = SandboxLifecycle(parent=self).to_lifecycle()
        resources = SandboxResources(parent=self)
        self._resources = resources.to_resources()
        self._host_free_bytes = resources.host_free_bytes
        self._egress = SandboxEgress(parent=self)
        self._previews = SandboxPreviews(parent=self)

    def find_problems(self) -> list[str]:
        """Give all that keeps this server from working with its settings; makes nothing."""
        found = self.find_wrong_settings() or self.find_wrong_places()
        if not found:
            try:
                self._access_file().require()
            except Misconfigured as exc:
                found.extend(exc.problems)
        return found

    def find_wrong_settings(self) -> list[str]:
        """Give the settings that are wrong, or have no effect, each with its place."""
        return checking.find_wrong_settings(self, self._refused)

    def find_wrong_places(self) -> list[str]:
        """Give the directories and files of the settings that cannot be used; makes nothing."""
        found = checking.find_wrong_places(self)
        if found or self.engine == DockerEngine.name:
            return found
        return checking.find_wrong_places_of(self._bubblewrap(), self)

    def _access_file(self) -> AccessFile:
        if self._access is None:
            path = Path(self.policy_file or Path(self.data_dir) / POLICY_NAME)
            self._access = AccessFile(path, self.log, must_exist=bool(self.policy_file))
        return self._access

    def initialize_handlers(self) -> None:
        """Add the routes below the server's base URL (the base class prefixes them)."""
        self.handlers.extend(ROUTES)

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Build the parts at the server's start and say which engine is used and why."""
        try:
            services = await self.ready()
        except Misconfigured:
            return  # it is in the log
        except Unavailable as exc:  # requests try again, and are told too
            self.log.error("sandbox: does not work yet: %s (%s)", exc.message, exc.detail)
            return
        url = url_path_join(serverapp.connection_url, "sandbox/api/conversations")
        self.log.info("sandbox engine: %s", services.engine_reason)
        self.log.info(_FIRST_CALL, url, url)

    @property
    def upload_bytes(self) -> int:
        """The largest upload, for handlers that bound a body before the parts are built."""
        return (Limits() if self._problems else self._limits).upload_bytes

    async def ready(self) -> Services:
        """Give the parts; the first caller builds them.

        Raises
        ------
        Misconfigured
            A setting is wrong, which only a restart puts right; or the policy file or a directory
            is, which is looked at again by each caller.
        Unavailable
            Something does not answer; the next caller tries again.
        """
        if self._services is not None:
            return self._services
        if self._building is None:
            self._building = asyncio.Lock()
        async with self._building:
            if self._services is None:
                try:
                    self._services = await self._build()
                except Misconfigured as exc:
                    self._log_problems(exc.problems)
                    raise
        return self._services

    def _log_problems(self, problems: tuple[str, ...]) -> None:
        """Write them into the log, once."""
        if problems != self._logged:
            self._logged = problems
            for problem in problems:
                self.log.error("sandbox: not configured correctly, serves nothing: %s", problem)

    async def stop_extension(self) -> None:
        """Let go of all sandboxes; they run on and the next server finds them."""
        services, self._services = self._services, None
        if services is not None:
            await let_go(services)

    async def _build(self) -> Services:
        assert self.serverapp is not None
        assert self.serverapp.event_logger is not None
        problems = self._problems or await asyncio.to_thread(self.find_wrong_places)
        if problems:
            raise Misconfigured(problems)
        access = self._access_file()
        access.require()
        data_dir = Path(self.data_dir)
        plan = Plan(
            data_dir=data_dir,
            runtime_dir=Path(self.runtime_dir),
            db_url=self.db_url or f"sqlite:///{data_dir / 'sandbox.db'}",
            master_key_file=self.master_key_file,
            access=access,
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
            choose_engine=self._choose_engine,
            caller_of=self._caller_of,
            events=self.serverapp.event_logger,
            log=self.log,
        )
        return await build(plan)

    async def _choose_engine(self) -> Choice:
        if self._sandbox_engine is not None:  # tests put one here
            return Choice(self._sandbox_engine, True, f"{self._sandbox_engine.name}: given")
        docker = DockerEngine(parent=self)
        return await choose(self.engine, docker, self._bubblewrap())

    def _bubblewrap(self) -> BubblewrapEngine:
        """Give the embedded engine, its directory in ours unless an administrator has set one."""
        if "state_dir" in self.config.BubblewrapEngine:
            return BubblewrapEngine(parent=self)
        return BubblewrapEngine(parent=self, state_dir=Path(self.data_dir) / "bubblewrap")

    def is_administrator(self, handler: JupyterHandler) -> bool:
        """Say whether an administrator asks through a handler, also where settings are wrong."""
        user = handler.current_user
        if user is None:
            return False
        owner = self._owner_of(handler)
        if owner == CONSTANT_OWNER:  # unless that is what is wrong
            return not any("owner_mode" in problem for problem in self._problems)
        return bool(_of_hub(user).get("admin")) or owner in self.administrators

    def _owner_of(self, handler: JupyterHandler) -> str:
        provider = type(handler.identity_provider)
        single_secret = provider in (IdentityProvider, PasswordIdentityProvider) or (
            provider.__name__ == "LegacyIdentityProvider"
        )
        return owner_of(handler.current_user.username, single_secret, self.owner_mode)

    def _caller_of(self, handler: JupyterHandler) -> Caller:
        hook = self.groups_hook
        of_hub = _of_hub(handler.current_user)
        groups = of_hub.get("groups") or () if hook is None else hook(handler)
        return Caller(self._owner_of(handler), frozenset(groups), self.is_administrator(handler))


def _of_hub(user: Any) -> dict[str, Any]:
    """Give what JupyterHub says of a user (``jupyterhub.singleuser.extension``)."""
    return getattr(user, "hub_user", None) or {}
