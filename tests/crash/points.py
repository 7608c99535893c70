"""Where a server is killed: the steps of the lifecycle, as data.

A point is a method of the product and a side of it. What leads there is an action (``actions.py``).
To add one: a line here, and nothing else unless no action comes by. A point that its action does
not reach fails its test.
"""

from __future__ import annotations

from dataclasses import dataclass

BOTH = ("docker", "bubblewrap")
_DOCKER = ("docker",)
_BUBBLEWRAP = ("bubblewrap",)


@dataclass(frozen=True)
class Point:
    """One place to die at.

    Attributes
    ----------
    name : str
        As it stands in the test's id; says what has been done and what not.
    action : str
        Function of ``actions`` that leads there.
    target : str
        ``module:Class.method`` or ``module:function``, where it is looked up by its callers.
    when : str
        ``before`` the call, or ``after`` it has returned.
    nth : int
        Which call, counted from when the point is armed.
    within : str
        Only calls out of a function of this name.
    engines : tuple of str
        On which it is tried each time. What an engine has no part in is tried on one.
    """

    name: str
    action: str
    target: str
    when: str
    nth: int = 1
    within: str = ""
    engines: tuple[str, ...] = BOTH


_HERE = "jupyter_sandbox"
_DATABASE = f"{_HERE}.stores.database:Database"
_SANDBOXES = f"{_HERE}.sandbox.sandboxes:Sandboxes"
_CONVERSATION = f"{_HERE}.conversations.conversation:Conversation"
_IDLE = f"{_HERE}.stores.idle_records:IdleRecords"
_RESTING = f"{_HERE}.conversations.resting:Resting"
_PLACING = f"{_HERE}.conversations.placing:Placing"
_PLAIN = f"{_HERE}.sandbox.plaintext:PlaintextDirs"
_WAY_OUT = f"{_HERE}.sandbox.way_out:WayOut"
_DOCKER_ENGINE = f"{_HERE}.engines.docker:DockerEngine"
_BWRAP_ENGINE = f"{_HERE}.engines.bubblewrap:BubblewrapEngine"
_LAUNCH = f"{_HERE}.engines.bubblewrap_launch"
_BLOBS = f"{_HERE}.stores.blobs"
_VAULT = f"{_HERE}.stores.vault"
_KEYS = f"{_HERE}.stores.key_records:KeyRecords"
_UPLOADS = f"{_HERE}.stores.upload_records:UploadRecords"
_APP = f"{_HERE}.app.extension"
_BUILDING = f"{_HERE}.app.building"


def _of(action: str, *points: tuple[str, str, str], engines: tuple[str, ...] = BOTH) -> list[Point]:
    """Give points of one action: (name, target, when)."""
    return [Point(f"{action}: {name}", action, *rest, engines=engines) for name, *rest in points]


# --- The first call of a conversation that has uploads: a sandbox is provisioned.
_PROVISIONING = [
    *_of(
        "first_call",
        ("nothing is claimed yet", f"{_HERE}.conversations.places:Places.claim", "before"),
        ("claimed", f"{_HERE}.conversations.places:Places.claim", "after"),
        ("intent written", f"{_DATABASE}.set_intent", "after"),
        ("directories made", f"{_SANDBOXES}._open", "after"),
        ("engine not asked yet", f"{_SANDBOXES}._spec", "after"),
        (
            "engine done, guest not there",
            f"{_HERE}.sandbox.link:GuestLink.wait_connected",
            "before",
        ),
        ("guest there", f"{_SANDBOXES}.create", "after"),
        ("uploads being placed", f"{_HERE}.sandbox.plaintext:_write", "after"),
        ("uploads placed", f"{_PLACING}.place_all", "after"),
        ("not written down as running", f"{_DATABASE}.set_running", "before"),
        ("written down as running", f"{_DATABASE}.set_running", "after"),
    ),
    *_of(
        "first_call_of_all",
        ("guest's files without their name", f"{_HERE}.sandbox.bundle:_make_readable", "before"),
        ("guest's files made", f"{_SANDBOXES}._spec", "after"),
        engines=_DOCKER,
    ),
    *_of(
        "first_call",
        ("container not made", f"{_DOCKER_ENGINE}._start", "before"),
        ("container made, not started", f"{_DOCKER_ENGINE}._start_created", "before"),
        ("container started", f"{_DOCKER_ENGINE}._start_created", "after"),
        engines=_DOCKER,
    ),
    *_of(
        "first_call",
        ("bubblewrap not asked", f"{_BWRAP_ENGINE}._start", "before"),
        ("user number claimed", f"{_HERE}.engines.uids:claim", "after"),
        ("record written", f"{_HERE}.engines.records:Records.write", "after"),
        ("etc written", f"{_HERE}.engines.bubblewrap_starts:write_etc", "after"),
        ("disk made, not mounted", f"{_HERE}.engines.disk_images:DiskImages.create", "after"),
        ("groups made", f"{_HERE}.engines.cgroups:Cgroups.create", "after"),
        ("forked, on its way to the gate", f"{_LAUNCH}:_read_init", "before"),
        ("forked, at the gate, not written down", f"{_LAUNCH}:_read_init", "after"),
        ("written down, gate closed", f"{_LAUNCH}:Launched.open_gate", "before"),
        ("gate open", f"{_LAUNCH}:Launched.open_gate", "after"),
        engines=_BUBBLEWRAP,
    ),
    *_of(
        "call_after_the_end",
        ("old one not removed", f"{_SANDBOXES}.remove", "before"),
        ("old one removed, no intent", f"{_DATABASE}.set_intent", "before"),
        ("shares not put back", f"{_PLACING}._put_back", "before"),
        ("a share put back", f"{_PLACING}._put_back", "after"),
    ),
]

# --- A server that finds a sandbox.
_ATTACHING = _of(
    "call_after_a_restart",
    ("not attached", f"{_SANDBOXES}.attach", "before"),
    ("socket made, guest not there", f"{_HERE}.sandbox.link:GuestLink.wait_connected", "before"),
    ("attached", f"{_SANDBOXES}.attach", "after"),
    ("uploads looked at", f"{_PLACING}.place_all", "after"),
)

# --- Standing still and going on.
_SLEEPING = [
    *_of(
        "suspend",
        ("nothing done", f"{_IDLE}.suspend", "before"),
        ("state set, not paused", f"{_SANDBOXES}.pause", "before"),
        ("paused, still claimed", f"{_SANDBOXES}.pause", "after"),
        ("paused", f"{_IDLE}.frozen", "after"),
    ),
    *_of(
        "wake",
        ("nothing done", f"{_RESTING}.begin_wake", "before"),
        ("state set, still paused", f"{_SANDBOXES}.go_on", "before"),
        ("goes on, no notice", f"{_DATABASE}.add_notice", "before"),
        ("notice written", f"{_DATABASE}.add_notice", "after"),
    ),
    *_of("call_to_a_suspended_one", ("goes on", f"{_SANDBOXES}.go_on", "after")),
    *_of(
        "wake_after_a_restart",
        ("state set, still paused", f"{_SANDBOXES}.attach", "before"),
        ("resumed, guest not there", f"{_SANDBOXES}._open", "before"),
    ),
]

# --- The end of a sandbox.
_ENDING = [
    *_of(
        "terminate",
        ("nothing done", f"{_DATABASE}.set_state", "before"),
        ("state set, no notice", f"{_DATABASE}.add_notice", "before"),
        ("notice written, not removed", f"{_SANDBOXES}.remove", "before"),
        ("way out closed", f"{_WAY_OUT}.close", "after"),
        ("engine done, plaintext there", f"{_PLAIN}.remove", "before"),
        ("plaintext gone, directory there", f"{_PLAIN}.remove", "after"),
        ("removed", f"{_SANDBOXES}.remove", "after"),
    ),
    *_of(
        "terminate",
        ("processes ended", f"{_HERE}.engines.recorded:end", "after"),
        ("files deleted", f"{_HERE}.engines.recorded:delete", "after"),
        ("groups removed", f"{_HERE}.engines.cgroups:SandboxGroups.remove", "after"),
        ("user number free", f"{_HERE}.engines.uids:release", "after"),
        ("record not removed", f"{_HERE}.engines.records:Records.remove", "before"),
        engines=_BUBBLEWRAP,
    ),
    *_of("terminate_a_suspended_one", ("state set", f"{_SANDBOXES}.remove", "before")),
]

# --- The end of a conversation.
_DELETING = _of(
    "delete",
    ("nothing done", f"{_CONVERSATION}.delete", "before"),
    ("sandbox being removed", f"{_PLAIN}.remove", "before"),
    ("sandbox gone", f"{_CONVERSATION}.delete", "after"),
    ("key destroyed", f"{_KEYS}.destroy", "after"),
    ("files being removed", f"{_BLOBS}:DirectoryBlobs.remove_area", "before"),
    ("files gone", f"{_BLOBS}:DirectoryBlobs.remove_area", "after"),
    ("row not deleted", f"{_DATABASE}.delete_conversation", "before"),
    ("row deleted", f"{_DATABASE}.delete_conversation", "after"),
)

# --- Files that come in. The store does not depend on the engine; what is placed in a sandbox does.
_UPLOADING = [
    *_of(
        "upload",
        ("begun", f"{_VAULT}:VaultSink.__aenter__", "after"),
        ("half written", f"{_VAULT}:VaultSink._seal", "after"),
        ("all written, no name", f"{_BLOBS}:_FileWriter.commit", "before"),
        ("named, directory not synced", f"{_BLOBS}:_sync_directory", "before"),
        ("named, no row", f"{_UPLOADS}.put", "before"),
        engines=_BUBBLEWRAP,
    ),
    *_of(
        "upload",
        ("row, not placed", f"{_PLACING}.place", "before"),
        ("half placed", f"{_HERE}.sandbox.plaintext:_write", "after"),
        ("placed, not acknowledged", f"{_PLACING}.place", "after"),
    ),
    *_of(
        "replace_an_upload",
        ("named, row of the old one", f"{_UPLOADS}.put", "before"),
        ("row replaced, old bytes there", f"{_UPLOADS}.put", "after"),
        ("old bytes being removed", f"{_BLOBS}:DirectoryBlobs.remove", "before"),
        engines=_BUBBLEWRAP,
    ),
    *_of("replace_an_upload", ("row replaced, not placed", f"{_PLACING}.place", "before")),
    *_of(
        "delete_an_upload",
        ("row gone, bytes there", f"{_UPLOADS}.delete", "after"),
        engines=_BUBBLEWRAP,
    ),
    *_of("delete_an_upload", ("bytes gone, still placed", f"{_PLACING}.place", "before")),
    *_of(
        "rename_an_upload",
        ("copied, row of the old name", f"{_UPLOADS}.move", "before"),
        ("row moved, both placed", f"{_UPLOADS}.move", "after"),
        engines=_BUBBLEWRAP,
    ),
    *_of(
        "first_upload",
        ("no key yet", f"{_KEYS}.add", "before"),
        ("key written, no file", f"{_KEYS}.add", "after"),
        engines=_DOCKER,
    ),
]

# --- Files that go out.
_SHARING = [
    *_of(
        "share",
        ("begun", f"{_VAULT}:VaultSink.__aenter__", "after"),
        ("half copied", f"{_VAULT}:VaultSink._seal", "after"),
        ("named, no row", f"{_DATABASE}.add_share", "before"),
        engines=_DOCKER,
    ),
    *_of("share", ("row, not acknowledged", f"{_DATABASE}.add_share", "after")),
    *_of(
        "share_again",
        ("second version named, no row", f"{_DATABASE}.add_share", "before"),
        ("second version there", f"{_DATABASE}.add_share", "after"),
        engines=_DOCKER,
    ),
    *_of(
        "remove_a_share",
        ("rows gone, bytes there", f"{_HERE}.stores.share_records:ShareRecords.remove", "after"),
        engines=_DOCKER,
    ),
]

# --- Calls.
_CALLING = [
    *_of(
        "command",
        ("not written down", f"{_DATABASE}.begin_call", "before"),
        ("written down", f"{_DATABASE}.begin_call", "after"),
        ("ended, result not written down", f"{_DATABASE}.finish_call", "before"),
        ("result written down", f"{_DATABASE}.finish_call", "after"),
    ),
    *_of(
        "cell",
        ("running", f"{_DATABASE}.begin_call", "after"),
        ("ended, result not written down", f"{_DATABASE}.finish_call", "before"),
    ),
    *_of(
        "first_cell", ("kernel being started", f"{_HERE}.sandbox.relay:KernelRelay.start", "after")
    ),
    *_of(
        "short_command",
        ("answered, not written down", f"{_DATABASE}.add_calls", "before"),
        engines=_BUBBLEWRAP,
    ),
]

# --- A server's own start and stop.
_STARTING = [
    *_of(
        "first_start",
        ("directories made", f"{_BUILDING}:make_private", "after"),
        ("database file made", f"{_HERE}.stores.connections:_create_private", "after"),
        ("tables being made", f"{_HERE}.stores.migrating:_create", "after"),
        ("tables made", f"{_DATABASE}.open", "after"),
        ("master key made", f"{_HERE}.stores.vault_opening:load_master_keys", "after"),
        ("installation's id written", f"{_HERE}.directories:server_id", "after"),
        ("pattern of disks made", f"{_HERE}.engines.disk_images:_pieces", "before"),
        ("engine tried", f"{_APP}:choose", "after"),
        ("built", f"{_APP}:SandboxApp._build", "after"),
        engines=_BUBBLEWRAP,
    ),
    *(
        Point(
            f"first_start: {what} in a file without its name",
            *("first_start", "os:link", "before"),
            nth=nth,
            within="make_text",
            engines=_BUBBLEWRAP,
        )
        for nth, what in enumerate(("master key", "installation's id"), start=1)
    ),
    Point(
        *("first_start: site files without their name", "first_start", "os:chmod", "before"),
        within="prepare_site_files",
        engines=_DOCKER,
    ),
    *_of(
        "call_after_a_restart",
        ("tables looked at", f"{_DATABASE}.open", "after"),
        ("not adopted", f"{_HERE}.conversations.adopting:Adopting.adopt_all", "before"),
        ("adopted", f"{_HERE}.conversations.adopting:Adopting.adopt_all", "after"),
        ("not reaped", f"{_HERE}.conversations.reaping:Reaping.reap", "before"),
        ("reaped", f"{_HERE}.conversations.reaping:Reaping.reap", "after"),
        ("files swept", f"{_HERE}.conversations.sweeping:Sweeping.sweep", "after"),
        ("built", f"{_APP}:SandboxApp._build", "after"),
    ),
    *_of(
        "stop",
        ("nothing done", f"{_APP}:SandboxApp.stop_extension", "before"),
        ("sandboxes being let go", f"{_HERE}.sandbox.sandbox:Sandbox.detach", "before"),
        ("sandboxes let go", f"{_HERE}.conversations.conversations:Conversations.detach", "after"),
        ("way out ended", f"{_WAY_OUT}.stop", "after"),
        ("database not closed", f"{_DATABASE}.close", "before"),
    ),
]


POINTS: list[Point] = [
    *_PROVISIONING,
    *_ATTACHING,
    *_SLEEPING,
    *_ENDING,
    *_DELETING,
    *_UPLOADING,
    *_SHARING,
    *_CALLING,
    *_STARTING,
]
