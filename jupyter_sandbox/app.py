"""The extension: reads the settings, builds the parts, adds the routes, lets go at the stop.

The only module that knows everybody. Parts are built on the loop at the server's start (or by the
first request, whichever is earlier), so that an engine that is slow or down delays no page.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.auth import IdentityProvider, PasswordIdentityProvider
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import url_path_join
from traitlets import Bool, Enum, Float, TraitError, Unicode, default
from traitlets import Callable as TraitCallable
from traitlets import Set as TraitSet

from .conversations.access_file import AccessFile
from .conversations.adopting import Adopting
from .conversations.contents.contents import Contents
from .conversations.conversations import Conversations
from .conversations.evictions import Evictions
from .conversations.housekeeping import Housekeeping
from .conversations.idling import LOOK_SECONDS, NOTE_SECONDS, Idling
from .conversations.journal import Journal
from .conversations.kernels import Kernels
from .conversations.living import Living
from .conversations.memory_guard import LOOK_SECONDS as MEMORY_LOOK_SECONDS
from .conversations.memory_guard import MemoryGuard
from .conversations.message_feeds import MessageFeeds
from .conversations.places import Places
from .conversations.placing import Placing
from .conversations.rates import Rates
from .conversations.reaping import Reaping
from .conversations.resting import Resting
from .conversations.shared_files import SharedFiles
from .conversations.state_counts import StateCounts
from .conversations.surroundings import Surroundings
from .conversations.sweeping import Sweeping
from .conversations.uploads import Uploads
from .conversations.warm_pool import ROUND_SECONDS, WarmPool
from .directories import FILES as DIRECTORY_FILES
from .directories import (
    choose_runtime_dir,
    has_stored_files,
    make_private,
    remember_runtime_dir,
)
from .directories import server_id as find_server_id
from .engines.bubblewrap import BubblewrapEngine
from .engines.docker import DockerEngine
from .engines.selection import Choice, choose
from .errors import Unavailable
from .events.emitting import AuditEvents
from .models import Caller
from .policy.access_text import POLICY_NAME
from .policy.certificates import BundleRefused
from .policy.ownership import CONSTANT_OWNER, owner_of
from .previews.file_previews import FilePreviews
from .proxies.client_hosts import ClientSettings, find_mirrors, find_preset_rules
from .routes import ROUTES
from .sandbox.client_settings import client_environment, prepare_site_files, read_trusted
from .sandbox.disk_guard import DiskGuard
from .sandbox.open_files import raise_open_files
from .sandbox.plaintext import PlaintextDirs, choose_plaintext_dirs, swap_is_on
from .sandbox.sandboxes import Sandboxes, SandboxSettings
from .sandbox.way_out import Outside, WayOut
from .services import Services
from .settings import (
    SandboxEgress,
    SandboxLifecycle,
    SandboxLimits,
    SandboxPreviews,
    SandboxResources,
)
from .stores.audit_log import MARK_NAME, AuditLog
from .stores.audit_records import AuditRecords
from .stores.database import Database
from .stores.idle_records import IdleRecords
from .stores.installation import require_installation
from .stores.leases import Leases
from .stores.master_keys import ENVIRONMENT as MASTER_KEY_ENVIRONMENT
from .stores.message_records import MessageRecords
from .stores.place_records import PlaceRecords
from .stores.pool_records import PoolRecords
from .stores.server_marks import ServerMarks
from .stores.session_records import SessionRecords
from .stores.share_records import ShareRecords
from .stores.upload_records import UploadRecords
from .stores.vault_opening import DIRECTORY_NAME as VAULT_NAME
from .stores.vault_opening import open_vault
from .tools.calls import Calls
from .tools.five_steps import FiveSteps
from .tools.guidance import guidance, network_text
from .tools.notebooks import Notebooks

_FORGET_SECONDS = 60.0
_GRACE_SECONDS = 60.0  # of a call beyond its longest time, until its end is recorded
_CALLS_SECONDS = 5.0  # between looks for calls whose server has died

_SWEEP_SECONDS = 3600.0
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
        self._way_out: WayOut | None = None

    @default("data_dir")
    def _default_data_dir(self) -> str:
        return str(Path(jupyter_data_dir()) / "jupyter_sandbox")

    @default("runtime_dir")
    def _default_runtime_dir(self) -> str:
        return str(choose_runtime_dir(Path(self.data_dir), os.environ))

    def initialize_settings(self) -> None:
        """Give handlers a way to this app; a wrong setting fails here, at the server's start."""
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
        if services is None:
            return
        await services.housekeeping.close()
        await services.state_counts.close()
        await services.disk_guard.close()
        services.message_feeds.end()
        await services.calls.close()
        await services.places.close()
        await services.kernels.close()
        await services.previews.close()
        await services.conversations.detach()
        await services.warm_pool.close()
        if self._way_out is not None:
            await self._way_out.stop()
        await services.contents.close()
        await services.uploads.close()
        await services.files.close()
        await services.engine.close()
        await services.journal.close()
        await services.audit.close()
        await services.database.close()
        services.marks.clear()

    async def _build(self) -> Services:
        data_dir, runtime_dir = Path(self.data_dir), Path(self.runtime_dir)
        for directory in (data_dir, runtime_dir):
            make_private(directory)
        await asyncio.to_thread(remember_runtime_dir, data_dir, runtime_dir)
        has_files = await asyncio.to_thread(has_stored_files, data_dir / VAULT_NAME)
        database = Database(self.db_url or f"sqlite:///{data_dir / 'sandbox.db'}")
        async with contextlib.AsyncExitStack() as undo:  # of a start that fails on the way
            undo.push_async_callback(database.close)
            await database.open()
            vault, master = await open_vault(
                data_dir, database.connections, os.environ, self.master_key_file
            )
            undo.push_async_callback(vault.close)
            server_id = await asyncio.to_thread(find_server_id, data_dir)
            await require_installation(database.connections, server_id, has_files)
            plaintext = self._plaintext_dirs(runtime_dir, server_id)
            choice = await self._choose_engine(data_dir)
            undo.pop_all()
        if os.environ.get(MASTER_KEY_ENVIRONMENT):
            self.log.warning(
                "the master key is in the environment variable %s: every program that this server "
                "starts can read it there; prefer SandboxApp.master_key_file",
                MASTER_KEY_ENVIRONMENT,
            )
        if not choice.available:
            self.log.error("sandbox engine: none: %s", choice.reason)
        for warning in choice.warnings:
            self.log.warning("sandbox engine: %s: %s", choice.engine.name, warning)
        settings = SandboxSettings(
            server_id=server_id,
            runtime_dir=runtime_dir,
            plaintext=plaintext,
            site_files=await asyncio.to_thread(prepare_site_files, runtime_dir, self._certificates),
            env=client_environment(bool(self._certificates)),
            start_timeout_seconds=self.start_timeout_seconds,
            resources=self._resources,
        )
        assert self.serverapp is not None
        assert self.serverapp.event_logger is not None
        events = AuditEvents(self.serverapp.event_logger, self.log)
        audit_records = AuditRecords(database.connections, master)
        audit = AuditLog(audit_records, data_dir / MARK_NAME, self.log, events.emit)
        way_out = WayOut(self._find_outside if self._egress.is_on else None, self.log)
        way_out.on_denial = audit.note_denial
        way_out.start()
        self._way_out = way_out
        sandboxes = Sandboxes(choice.engine, settings, way_out, self.log)
        disk_guard = DiskGuard(sandboxes, self._host_free_bytes, self.log)
        disk_guard.start()
        records = UploadRecords(database.connections)
        pool_records = PoolRecords(database.connections, server_id)
        placing = Placing(sandboxes, database, records, vault, self.log)
        messages = MessageRecords(database.connections)
        journal, message_feeds = Journal(messages, self.log), MessageFeeds(messages)
        journal.on_written = message_feeds.written
        marks = ServerMarks(data_dir, secrets.token_hex(8))
        await asyncio.to_thread(marks.set)
        fit = raise_open_files(self._lifecycle.running_total)
        if fit < self._lifecycle.running_total:
            self.log.warning(
                "the limit of open files is enough for %d running sandboxes, and running_total is "
                "%d: raise it (`ulimit -n`, LimitNOFILE)",
                *(fit, self._lifecycle.running_total),
            )
        place_records = PlaceRecords(database.connections, database.now)
        places = Places(place_records, self._lifecycle, self.log)
        warm_pool = WarmPool(
            self._lifecycle.warm_pool_size, sandboxes, pool_records, marks, self.log
        )
        resting = Resting(IdleRecords(database), places, sandboxes, marks, self.log)
        around = Surroundings(
            *(database, sandboxes, placing, places, journal, marks, self.log, audit, warm_pool),
            resting=resting,
        )
        housekeeping = Housekeeping(Leases(database.connections), marks, self.log)
        housekeeping.add("warm pool", ROUND_SECONDS, warm_pool.look, alone=False)
        conversations = Conversations(around, vault, Rates(self._limits), self._lifecycle)
        evictions = Evictions(
            *(place_records, conversations, self._lifecycle),
            *(self._limits.command_seconds + _GRACE_SECONDS, self.log),
        )
        places.make_room = evictions.make_room
        memory_guard = MemoryGuard(evictions, sandboxes, self._lifecycle, self.log)
        places.memory_level = lambda: memory_guard.level
        warm_pool.memory_level = places.memory_level
        housekeeping.add("memory", MEMORY_LOOK_SECONDS, memory_guard.look, alone=False)
        every = self._lifecycle.reap_seconds
        adopting = Adopting(conversations, sandboxes, database, self.log)
        housekeeping.add("adopt", every, adopting.adopt_all, alone=False)
        reaping = Reaping(sandboxes, Living(database, pool_records), marks, self.log)
        housekeeping.add("reap", every, reaping.reap)
        unfinished = {
            data_dir: (MARK_NAME, POLICY_NAME, *DIRECTORY_FILES),
            runtime_dir: ("guest-*", "site-*"),
        }
        sweeping = Sweeping(database, records, vault, self.log, unfinished)
        housekeeping.add("sweep files", max(every, _SWEEP_SECONDS), sweeping.sweep)
        housekeeping.start()
        calls = Calls(
            *(conversations, database, vault, journal, self._limits, self.log, audit),
            *(marks.process_id, marks.is_alive),
        )
        housekeeping.add("calls", _CALLS_SECONDS, calls.take_over, alone=False)
        changed = calls.capacity.forget
        uploads = Uploads(
            database, records, vault, placing, journal, self._limits, changed, audit.note
        )
        shared = SharedFiles(
            database, ShareRecords(database.connections), vault, calls.capacity.forget
        )
        workspace = settings.workspace_path if self.show_workspace else ""
        contents = Contents(
            *(conversations, uploads, shared, self._limits),
            *(workspace, self.trust_outputs, self.log),
        )
        sessions = SessionRecords(database.connections)
        kernels = Kernels(self._limits, self.trust_outputs, sessions, self.log)
        housekeeping.add("forget kernels", _FORGET_SECONDS, kernels.forget_idle, alone=False)
        housekeeping.add("forget", _FORGET_SECONDS, conversations.forget_idle, alone=False)
        idling = Idling(
            *(conversations, database, sandboxes, resting, self._lifecycle, kernels.release),
            *(self._limits.command_seconds, self.log),
        )
        housekeeping.add("note_uses", NOTE_SECONDS, idling.note_uses, alone=False)
        housekeeping.add("idle", LOOK_SECONDS, idling.look)
        return Services(
            database=database,
            engine=choice.engine,
            engine_available=choice.available,
            engine_reason=choice.reason,
            conversations=conversations,
            calls=calls,
            journal=journal,
            message_feeds=message_feeds,
            notebooks=Notebooks(journal, database),
            five_steps=FiveSteps(conversations, calls, database, vault, self.log),
            uploads=uploads,
            contents=contents,
            kernels=kernels,
            idling=idling,
            files=vault,
            audit=audit,
            disk_guard=disk_guard,
            state_counts=StateCounts(database),
            marks=marks,
            warm_pool=warm_pool,
            housekeeping=housekeeping,
            places=places,
            place_records=place_records,
            memory_guard=memory_guard,
            previews=FilePreviews(self._previews.html_scripts, self.log),
            limits=self._limits,
            lifecycle=self._lifecycle,
            guidance=lambda: guidance(self._limits, network=network_text(way_out.allowed)),
            access=AccessFile(
                Path(self.policy_file or data_dir / POLICY_NAME), self.log, audit.note
            ),
            caller_of=self._caller_of,
        )

    async def _find_outside(self) -> Outside:
        """Give what sandboxes may reach; asks the package clients of this host."""
        presets, clients = self._egress.presets, ClientSettings()
        rules = await find_preset_rules(presets, self.log, clients)
        mirrors = await find_mirrors(presets, self.log, clients)
        return Outside(self._egress.to_rules(rules), mirrors)

    def _plaintext_dirs(self, runtime_dir: Path, server_id: str) -> PlaintextDirs:
        """Give where uploads of running sandboxes lie in plain, and say so in the log."""
        dirs, where = choose_plaintext_dirs(runtime_dir, server_id, self.allow_plaintext_on_disk)
        self.log.info("uploads of running sandboxes lie in plain %s", where)
        if swap_is_on():
            self.log.warning("swap is on: memory with plaintext may be written to a disk")
        return dirs

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
