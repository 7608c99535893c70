"""Builds the parts of a running server, each from those below it; the only module that knows all.

The order is that of the layers: stores, sandboxes, what conversations share, what becomes of them,
what handlers work with. ``let_go`` closes what was built, from the top.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jupyter_events.logger import EventLogger
from jupyter_server.base.handlers import JupyterHandler

from ..conversations.access_file import AccessFile
from ..conversations.adopting import Adopting
from ..conversations.contents.contents import Contents
from ..conversations.conversations import Conversations
from ..conversations.evictions import Evictions
from ..conversations.housekeeping import Housekeeping
from ..conversations.idling import LOOK_SECONDS, NOTE_SECONDS, Idling
from ..conversations.journal import Journal
from ..conversations.kernels import Kernels
from ..conversations.living import Living
from ..conversations.memory_guard import LOOK_SECONDS as MEMORY_LOOK_SECONDS
from ..conversations.memory_guard import MemoryGuard
from ..conversations.message_feeds import MessageFeeds
from ..conversations.places import Places
from ..conversations.placing import Placing
from ..conversations.rates import Rates
from ..conversations.reaping import Reaping
from ..conversations.resting import Resting
from ..conversations.shared_files import SharedFiles
from ..conversations.state_counts import StateCounts
from ..conversations.surroundings import Surroundings
from ..conversations.sweeping import Sweeping
from ..conversations.tidying import ROUND_SECONDS as TIDY_SECONDS
from ..conversations.tidying import Tidying
from ..conversations.uploads import Uploads
from ..conversations.warm_pool import ROUND_SECONDS, WarmPool
from ..directories import (
    DATA_NAMES,
    RUNTIME_NAMES,
    make_private,
    remember_runtime_dir,
    require_database,
)
from ..directories import FILES as DIRECTORY_FILES
from ..engines.base import Resources
from ..engines.selection import Choice
from ..events.emitting import AuditEvents
from ..models import Caller, Lifecycle, Limits
from ..policy.access_text import POLICY_NAME
from ..previews.file_previews import FilePreviews
from ..previews.rendering import Renderer
from ..proxies.client_hosts import ClientSettings, find_mirrors, find_preset_rules
from ..sandbox.client_settings import client_environment, prepare_site_files
from ..sandbox.disk_guard import DiskGuard
from ..sandbox.open_files import raise_open_files
from ..sandbox.plaintext import PlaintextDirs, choose_plaintext_dirs, swap_is_on
from ..sandbox.sandboxes import Sandboxes, SandboxSettings
from ..sandbox.way_out import Outside, WayOut
from ..services import Services
from ..settings import SandboxEgress
from ..stores.audit_log import MARK_NAME, AuditLog
from ..stores.audit_records import AuditRecords
from ..stores.call_records import CallRecords
from ..stores.database import Database
from ..stores.idle_records import IdleRecords
from ..stores.kept_bytes import KeptBytes
from ..stores.leases import Leases
from ..stores.master_keys import ENVIRONMENT as MASTER_KEY_ENVIRONMENT
from ..stores.master_keys import MasterKeys
from ..stores.message_records import MessageRecords
from ..stores.place_records import PlaceRecords
from ..stores.plain_rows import PlainRows
from ..stores.pool_records import PoolRecords
from ..stores.room import Room
from ..stores.row_seals import RowSeals
from ..stores.server_marks import ServerMarks
from ..stores.session_records import SessionRecords
from ..stores.share_records import ShareRecords
from ..stores.upload_records import UploadRecords
from ..stores.vault import Vault
from ..stores.vault_opening import UNVERSIONED_NAME, open_vault
from ..tools.calls import Calls
from ..tools.five_steps import FiveSteps
from ..tools.guidance import guidance, network_text
from ..tools.notebooks import Notebooks
from .standstill import Standstill

_FORGET_SECONDS = 60.0
_GRACE_SECONDS = 60.0  # of a call beyond its longest time, until its end is recorded
_QUARANTINE_SECONDS = 1.0
_CALLS_SECONDS = 5.0  # between looks for calls whose server has died
_SWEEP_SECONDS = 3600.0
_PRUNE_SECONDS = 3600.0
_ERASE_SECONDS = 15.0  # between tries, while somebody reads the database


@dataclass(frozen=True)
class Plan:
    """What a server is to be: all settings, read and checked.

    Attributes
    ----------
    certificates : sequence of str
        PEM blocks of all that clients inside are to trust; empty for what the image trusts.
    choose_engine : callable
        Asked once the stores are open.
    caller_of : callable
        Gives who asks through a handler.
    events : EventLogger
        Jupyter's, for audit events.
    """

    data_dir: Path
    runtime_dir: Path
    db_url: str
    master_key_file: str
    access: AccessFile
    audit_keep_days: float
    allow_plaintext_on_disk: bool
    start_timeout_seconds: float
    show_workspace: bool
    trust_outputs: bool
    html_scripts: bool
    limits: Limits
    lifecycle: Lifecycle
    resources: Resources
    host_free_bytes: int
    egress: SandboxEgress
    certificates: Sequence[str]
    choose_engine: Callable[[], Awaitable[Choice]]
    caller_of: Callable[[JupyterHandler], Caller]
    events: EventLogger
    log: logging.Logger


@dataclass(frozen=True)
class _Base:
    """What is there before any sandbox."""

    database: Database
    vault: Vault
    master: MasterKeys
    server_id: str
    plaintext: PlaintextDirs
    choice: Choice
    room: Room


@dataclass(frozen=True)
class _Machines:
    """Sandboxes, and what watches over them without knowing of conversations."""

    sandboxes: Sandboxes
    way_out: WayOut
    disk_guard: DiskGuard
    audit: AuditLog
    marks: ServerMarks
    standstill: Standstill


async def build(plan: Plan) -> Services:
    """Build and start all parts.

    Raises
    ------
    Unavailable
        The database, the keys or the directories cannot be used; what was opened is closed.
    """
    base = await _open(plan)
    machines = await _build_machines(plan, base)
    services = await _build_services(plan, base, machines)
    machines.standstill.start()
    return services


async def let_go(services: Services) -> None:
    """Close all parts, from the top; sandboxes run on."""
    await services.housekeeping.close()
    await services.state_counts.close()
    await services.disk_guard.close()
    services.message_feeds.end()
    await services.calls.close()
    await services.places.close()
    await services.kernels.close()
    await services.renderer.close()
    await services.conversations.detach()
    await services.warm_pool.close()
    await services.way_out.stop()
    await services.contents.close()
    await services.uploads.close()
    await services.engine.close()
    await services.journal.close()
    await services.files.close()
    await services.audit.close()
    await services.database.close()
    services.marks.clear()
    services.stop_watching()


async def _open(plan: Plan) -> _Base:
    data_dir, runtime_dir, log = plan.data_dir, plan.runtime_dir, plan.log
    for directory, own_names in ((data_dir, DATA_NAMES), (runtime_dir, RUNTIME_NAMES)):
        make_private(directory, own_names)
    database = Database(plan.db_url)
    async with contextlib.AsyncExitStack() as undo:  # of a start that fails on the way
        undo.push_async_callback(database.close)
        await database.open()
        room = Room()
        vault, master = await open_vault(
            data_dir, database.connections, os.environ, plan.master_key_file, room
        )
        undo.push_async_callback(vault.close)
        server_id = await require_database(database.connections, data_dir)
        plaintext, where = choose_plaintext_dirs(
            runtime_dir, server_id, plan.allow_plaintext_on_disk
        )
        log.info("uploads of running sandboxes lie in plain %s", where)
        if swap_is_on():
            log.warning("swap is on: memory with plaintext may be written to a disk")
        choice = await plan.choose_engine()
        # Not earlier: a server that does not start has no sandboxes there.
        await asyncio.to_thread(remember_runtime_dir, data_dir, runtime_dir)
        undo.pop_all()
    if os.environ.get(MASTER_KEY_ENVIRONMENT):
        log.warning(
            "the master key is in the environment variable %s: every program that this server "
            "starts can read it there; prefer SandboxApp.master_key_file",
            MASTER_KEY_ENVIRONMENT,
        )
    if not choice.available:
        log.error("sandbox engine: none: %s", choice.reason)
    for warning in choice.warnings:
        log.warning("sandbox engine: %s: %s", choice.engine.name, warning)
    return _Base(database, vault, master, server_id, plaintext, choice, room)


async def _build_machines(plan: Plan, base: _Base) -> _Machines:
    log = plan.log
    settings = SandboxSettings(
        server_id=base.server_id,
        runtime_dir=plan.runtime_dir,
        plaintext=base.plaintext,
        site_files=await asyncio.to_thread(prepare_site_files, plan.runtime_dir, plan.certificates),
        env=client_environment(bool(plan.certificates)),
        start_timeout_seconds=plan.start_timeout_seconds,
        starts_python=plan.lifecycle.python_kernel == "eager",
        resources=plan.resources,
    )
    audit_records = AuditRecords(base.database.connections, base.master)
    events = AuditEvents(plan.events, log)
    audit = AuditLog(audit_records, plan.data_dir / MARK_NAME, log, events.emit)
    way_out = WayOut(_finder(plan) if plan.egress.is_on else None, log)
    way_out.on_denial = audit.note_denial
    way_out.start()
    sandboxes = Sandboxes(base.choice.engine, settings, way_out, log)
    disk_guard = DiskGuard(
        sandboxes, plan.host_free_bytes, log, data_dir=plan.data_dir, room=base.room
    )
    disk_guard.start()
    marks = ServerMarks(plan.data_dir, secrets.token_hex(8))
    await asyncio.to_thread(marks.set)
    standstill = Standstill(sandboxes.homes, log)
    return _Machines(sandboxes, way_out, disk_guard, audit, marks, standstill)


async def _build_services(plan: Plan, base: _Base, machines: _Machines) -> Services:
    database, vault, log = base.database, base.vault, plan.log
    limits, lifecycle = plan.limits, plan.lifecycle
    sandboxes, audit, marks = machines.sandboxes, machines.audit, machines.marks
    connections = database.connections

    # what conversations share
    records = UploadRecords(connections)
    pool_records = PoolRecords(connections, base.server_id)
    placing = Placing(sandboxes, database, records, vault, log)
    seals = RowSeals(vault.keys)
    kept = KeptBytes(limits.result_bytes, limits.owner_result_bytes)
    call_records = CallRecords(connections, seals, kept, database.now)
    messages = MessageRecords(connections, seals, kept)
    journal, message_feeds = Journal(messages, log), MessageFeeds(messages)
    journal.on_written = message_feeds.written
    place_records = PlaceRecords(connections, database.now)
    places = Places(place_records, lifecycle, log)
    warm_pool = WarmPool(lifecycle.warm_pool_size, sandboxes, pool_records, marks, log)
    resting = Resting(IdleRecords(database), places, sandboxes, marks, log)
    around = Surroundings(
        *(database, sandboxes, placing, places, journal, marks, log, audit, warm_pool),
        resting=resting,
    )
    conversations = Conversations(around, vault, Rates(limits), lifecycle)
    evictions = Evictions(
        *(place_records, conversations, lifecycle),
        *(limits.command_seconds + _GRACE_SECONDS, log),
    )
    places.make_room = evictions.make_room
    memory_guard = MemoryGuard(evictions, sandboxes, lifecycle, log)
    places.memory_level = lambda: memory_guard.level
    warm_pool.memory_level = places.memory_level

    # what handlers work with
    calls = Calls(
        *(conversations, database, call_records, vault, journal, limits, log, audit),
        *(marks.process_id, marks.is_alive, base.room),
    )
    uploads = Uploads(
        *(database, records, vault, placing, journal, limits),
        *(calls.capacity.forget, audit.note),
    )
    shared = SharedFiles(database, ShareRecords(connections), vault, calls.capacity.forget)
    renderer = Renderer(log)
    workspace = sandboxes.settings.workspace_path if plan.show_workspace else ""
    contents = Contents(
        *(conversations, uploads, shared, limits),
        *(workspace, plan.trust_outputs, renderer, log),
    )
    kernels = Kernels(limits, plan.trust_outputs, SessionRecords(connections), renderer, log)
    idling = Idling(
        *(conversations, database, sandboxes, resting, lifecycle, kernels.release),
        *(limits.command_seconds, log),
    )

    async def prune_audit() -> None:
        if plan.audit_keep_days:
            await audit.prune(timedelta(days=plan.audit_keep_days))

    # what is done again and again: name, seconds between, what, whether by one server for all
    every = lifecycle.reap_seconds
    adopting = Adopting(conversations, sandboxes, database, log)
    reaping = Reaping(sandboxes, Living(database, pool_records), marks, log)
    unfinished = {
        plan.data_dir: (MARK_NAME, POLICY_NAME, UNVERSIONED_NAME, *DIRECTORY_FILES),
        plan.runtime_dir: ("guest-*", "site-*"),
    }
    sweeping = Sweeping(database, records, vault, log, unfinished)
    tidying = Tidying(connections, PlainRows(connections, seals), log)
    housekeeping = Housekeeping(Leases(connections), marks, log)
    for name, seconds, work, alone in (
        ("warm pool", ROUND_SECONDS, warm_pool.look, False),
        ("quarantine", _QUARANTINE_SECONDS, sandboxes.end_quarantined, False),
        ("memory", MEMORY_LOOK_SECONDS, memory_guard.look, False),
        ("adopt", every, adopting.adopt_all, False),
        ("reap", every, reaping.reap, True),
        ("sweep files", max(every, _SWEEP_SECONDS), sweeping.sweep, True),
        ("prune audit log", _PRUNE_SECONDS, prune_audit, True),
        ("erase keys", _ERASE_SECONDS, vault.erase_keys, False),
        ("calls", _CALLS_SECONDS, calls.take_over, False),
        ("forget kernels", _FORGET_SECONDS, kernels.forget_idle, False),
        ("forget", _FORGET_SECONDS, conversations.forget_idle, False),
        ("note_uses", NOTE_SECONDS, idling.note_uses, False),
        ("idle", LOOK_SECONDS, idling.look, True),
        ("tidy", TIDY_SECONDS, tidying.tidy, True),
    ):
        housekeeping.add(name, seconds, work, alone=alone)
    plan.access.tell(audit.note)
    _fit_open_files(lifecycle.running_total, log)
    housekeeping.start()
    return Services(
        database=database,
        engine=base.choice.engine,
        engine_available=base.choice.available,
        engine_reason=base.choice.reason,
        conversations=conversations,
        calls=calls,
        journal=journal,
        message_feeds=message_feeds,
        notebooks=Notebooks(journal, call_records),
        five_steps=FiveSteps(conversations, calls, database, vault, log),
        uploads=uploads,
        contents=contents,
        kernels=kernels,
        idling=idling,
        files=vault,
        audit=audit,
        disk_guard=machines.disk_guard,
        way_out=machines.way_out,
        stop_watching=machines.standstill.close,
        state_counts=StateCounts(database),
        marks=marks,
        warm_pool=warm_pool,
        housekeeping=housekeeping,
        places=places,
        place_records=place_records,
        memory_guard=memory_guard,
        previews=FilePreviews(plan.html_scripts, renderer),
        renderer=renderer,
        limits=limits,
        lifecycle=lifecycle,
        guidance=lambda: guidance(limits, network=network_text(machines.way_out.allowed)),
        access=plan.access,
        caller_of=plan.caller_of,
    )


def _finder(plan: Plan) -> Callable[[], Awaitable[Outside]]:
    """Give what finds out, from the package clients of this host, what sandboxes may reach."""

    async def find_outside() -> Outside:
        presets, clients = plan.egress.presets, ClientSettings()
        rules = await find_preset_rules(presets, plan.log, clients)
        mirrors = await find_mirrors(presets, plan.log, clients)
        return Outside(plan.egress.to_rules(rules), mirrors)

    return find_outside


def _fit_open_files(running_total: int, log: logging.Logger) -> None:
    fit = raise_open_files(running_total)
    if fit < running_total:
        log.warning(
            "the limit of open files is enough for %d running sandboxes, and running_total is "
            "%d: raise it (`ulimit -n`, LimitNOFILE)",
            *(fit, running_total),
        )
