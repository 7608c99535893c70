"""What crosses the borders between the layers: frozen data, no behaviour but JSON.

Units are in the names: ``_seconds``, ``_bytes``, ``_at`` (aware UTC).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Emit: TypeAlias = Callable[[str], None]
"""Takes a piece of output while it is produced; never blocks."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what one call may use and give (SPEC.md 3); sizes in bytes, times in seconds."""

    command_seconds: float = 600.0
    output_bytes: int = 1_048_576
    view_bytes: int = 16_000
    share_files: int = 20
    share_bytes: int = 4 * 1024**3
    capacity_bytes: int = 5 * 1024**3
    write_bytes: int = 8 * 1024**2
    upload_bytes: int = 25_000_000
    result_bytes: int = 256 * 1024**2
    owner_result_bytes: int = 2 * 1024**3
    calls_at_once: int = 64
    calls_per_minute: int = 6000
    conversations_per_hour: int = 600


@dataclass(frozen=True)
class IdleTimes:
    """After how long without a use a sandbox rests and ends; in seconds, 0: never."""

    suspend_seconds: float
    terminate_seconds: float


@dataclass(frozen=True)
class Lifecycle:
    """When a sandbox that nobody uses rests and ends, and how many there may be.

    Times are in seconds, 0: never; numbers at once, 0: any number. ``group_times`` are for
    conversations of the users of a group. ``keep_awake_seconds`` is the longest that a user may
    keep one as it is. ``python_kernel`` is ``eager`` (started with the sandbox) or ``lazy``.
    """

    suspend_seconds: float = 900.0
    terminate_seconds: float = 30 * 86400.0
    max_busy_seconds: float = 7200.0
    keep_awake_seconds: float = 86400.0
    group_times: Mapping[str, IdleTimes] = field(default_factory=dict)
    running_per_user: int = 64
    running_total: int = 200
    live_per_user: int = 200
    live_total: int = 1000
    place_wait_seconds: float = 20.0
    place_queue: int = 100
    evict_idle_seconds: float = 600.0
    memory_low_bytes: int = 0
    memory_stalled_percent: float = 20.0
    warm_pool_size: int = 0
    python_kernel: str = "eager"
    reap_seconds: float = 300.0


@dataclass(frozen=True)
class PlacesTaken:
    """Sandboxes that there are, of one user and of all; starting ones run."""

    live_of_user: int = 0
    running_of_user: int = 0
    live: int = 0
    running: int = 0


@dataclass(frozen=True)
class Caller:
    """Who asks: whose conversations, in which groups, and whether they administer the server."""

    owner: str
    groups: frozenset[str] = frozenset()
    is_administrator: bool = False


@dataclass(frozen=True)
class Areas:
    """Where the areas of SPEC.md 2 lie inside the sandbox: absolute paths without a final slash."""

    uploads: str = "/mnt/user-data/uploads"
    workspace: str = "/workspace"
    outputs: str = "/mnt/user-data/outputs"


@dataclass(frozen=True)
class Outcome:
    """How an execution in a kernel ended.

    Attributes
    ----------
    text : str
        Output, bounded, with its truncation notice if any; ANSI codes still in it.
    exit_code : int or None
        Of a shell command: 0 to 255, 128 + n for signal n. None: it did not end by itself, or it
        was no shell command.
    cwd : str
        Working directory that the next command starts in ("" if not known).
    jobs : tuple of (pid, name)
        Background processes of the command that still run.
    jobs_output : str or None
        File inside that takes what they still write to the command's output.
    spool : str or None
        File inside that holds the whole output.
    images : tuple of Image
        What a Python cell displayed.
    error : str or None
        Of a Python cell that raised: ``"NameError: name 'x' is not defined"``.
    lost : str
        What a restart on the way has cost ("" for nothing), as a sentence for the model.
    refusals : tuple of str
        What the egress proxy refused to the conversation meanwhile, a sentence or two each.
    hits : tuple of LimitHit
        The limits that it has met.
    """

    text: str
    duration_seconds: float
    exit_code: int | None = None
    cwd: str = ""
    jobs: tuple[tuple[int, str], ...] = ()
    jobs_output: str | None = None
    truncated: bool = False
    spool: str | None = None
    timed_out: bool = False
    interrupted: bool = False
    killed: int = 0
    images: tuple[Image, ...] = ()
    error: str | None = None
    lost: str = ""
    refusals: tuple[str, ...] = ()
    hits: tuple[LimitHit, ...] = ()


@dataclass(frozen=True)
class DiskStop:
    """What a sandbox had on its disk when it was stopped for it; entries None: not counted."""

    size_bytes: int
    entries: int | None = None


@dataclass(frozen=True)
class LimitHit:
    """A limit that a command or cell has met.

    Attributes
    ----------
    limit : str
        ``"memory"``, ``"processes"``, ``"file_size"`` or ``"disk"``.
    limit_value : float
        The limit itself: bytes, or a number.
    path : str
        Of a disk: the directory that is full ("" for the whole disk).
    stop : DiskStop or None
        What is there, where a disk is watched and over its limit.
    entries : bool
        The limit is of files and directories.
    largest : tuple of (path, bytes)
        The directories in which the room is, claimed by the sandbox: bytes, or entries if
        ``entries``.
    ended : bool
        All processes were ended for it.
    """

    limit: str
    limit_value: float
    path: str = ""
    stop: DiskStop | None = None
    entries: bool = False
    largest: tuple[tuple[str, int], ...] = ()
    ended: bool = False


@dataclass(frozen=True)
class Image:
    """A raster image: ``media_type`` is one of image/png, image/jpeg, image/gif, image/webp."""

    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class TextContent:
    """Text for the model."""

    text: str

    def to_json(self) -> dict[str, JsonValue]:
        """Give the JSON shape of SPEC.md 10."""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True)
class ImageContent:
    """An image for the model; ``data`` is base64."""

    media_type: str
    data: str = field(repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """Give the JSON shape of SPEC.md 10."""
        return {"type": "image", "media_type": self.media_type, "data": self.data}


@dataclass(frozen=True)
class FileCard:
    """A shared file, or why one was not shared (then ``error`` and ``code`` say why)."""

    path: str
    name: str
    file_id: str = ""
    size_bytes: int = 0
    media_type: str = ""
    preview: str = "download"
    version: int = 0
    sha256: str = ""
    error: str = ""
    code: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        """Give the JSON shape of SPEC.md 10."""
        if self.error:
            return {
                "type": "file",
                "path": self.path,
                "name": self.name,
                "error": self.error,
                "code": self.code,
            }
        return {
            "type": "file",
            "path": self.path,
            "name": self.name,
            "id": self.file_id,
            "size_bytes": self.size_bytes,
            "media_type": self.media_type,
            "preview": self.preview,
            "version": self.version,
            "sha256": self.sha256,
        }


Content: TypeAlias = TextContent | ImageContent | FileCard


@dataclass(frozen=True)
class ToolResult:
    """What a tool gives back.

    Attributes
    ----------
    code : str
        ``"ok"``, or the stable code of the error.
    exit_code : int or None
        Of a command; a non-zero one is data, not an error.
    """

    content: tuple[Content, ...]
    is_error: bool = False
    code: str = "ok"
    exit_code: int | None = None
    truncated: bool | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Give the JSON shape of SPEC.md 10 (without call_id and duration)."""
        shape: dict[str, JsonValue] = {
            "is_error": self.is_error,
            "code": self.code,
            "content": [part.to_json() for part in self.content],
        }
        if self.exit_code is not None:
            shape["exit_code"] = self.exit_code
        if self.truncated is not None:
            shape["truncated"] = self.truncated
        return shape


CallState = Literal["running", "finished", "cancelled", "lost"]


@dataclass(frozen=True)
class CallRecord:
    """A tool call as the database keeps it; ``result`` is the JSON of its ToolResult.

    It is None while the call runs, and when it is not kept any more. One that was read may be an
    ``EncodedJson``: to look into it takes time. ``server`` is the process that runs it;
    ``timeout_seconds`` is what its command or cell has.
    """

    call_id: str
    conversation_id: str
    tool: str
    state: CallState
    started_at: datetime
    finished_at: datetime | None = None
    result: Mapping[str, JsonValue] | None = None
    server: str = ""
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class ConversationRecord:
    """A conversation as the database keeps it.

    ``sandbox_id`` is "" while there is none. ``notice`` waits for the next result. ``generation``
    counts provisionings. ``claimed_by`` is the server process that provisions, until
    ``claimed_until``; "" and None when none does. A suspended one is claimed while it is being
    frozen. ``busy_at`` is when a background job was last seen at work. ``suspend_seconds`` and
    ``terminate_seconds`` are what its user's groups had at its last use, None: what all have.
    """

    conversation_id: str
    owner: str
    title: str
    key: str | None
    state: str
    created_at: datetime
    used_at: datetime
    engine: str = ""
    sandbox_id: str = ""
    generation: int = 0
    notice: str = ""
    claimed_by: str = ""
    claimed_until: datetime | None = None
    busy_at: datetime | None = None
    keep_awake_until: datetime | None = None
    suspend_seconds: float | None = None
    terminate_seconds: float | None = None
    suspended_at: datetime | None = None
    suspended_because: str | None = None


FileKind = Literal["upload", "share"]


@dataclass(frozen=True)
class FileIdentity:
    """Which file it is, for the store: what is stored as one opens as no other.

    ``file_id`` is the store's own name for the bytes, new for each version; ``name`` is an upload's
    name or a shared file's path; ``version`` is a shared file's, an upload has 0.
    """

    conversation_id: str
    file_id: str
    kind: FileKind
    name: str
    version: int = 0


@dataclass(frozen=True)
class StoredFile:
    """A file as the store must give it back; ``sha256`` is of the contents, in hexadecimal."""

    identity: FileIdentity
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class UploadRecord:
    """An uploaded file as the database keeps it: one for each name of a conversation."""

    upload_id: str
    conversation_id: str
    name: str
    size_bytes: int
    sha256: str
    media_type: str
    preview: str
    created_at: datetime

    @property
    def stored(self) -> StoredFile:
        """What to ask the store for."""
        identity = FileIdentity(self.conversation_id, self.upload_id, "upload", self.name)
        return StoredFile(identity, self.size_bytes, self.sha256)


@dataclass(frozen=True)
class ShareRecord:
    """One version of a shared file as the database keeps it.

    ``path`` is relative to the outputs area; ``stored_name`` is the store's own name for the bytes.
    """

    share_id: str
    conversation_id: str
    path: str
    name: str
    version: int
    size_bytes: int
    sha256: str
    media_type: str
    preview: str
    stored_name: str
    created_at: datetime

    @property
    def stored(self) -> StoredFile:
        """What to ask the store for."""
        identity = FileIdentity(
            self.conversation_id, self.stored_name, "share", self.path, self.version
        )
        return StoredFile(identity, self.size_bytes, self.sha256)


MessageKind = Literal["user", "call", "result", "file", "upload", "notice"]


@dataclass(frozen=True)
class MessageRecord:
    """A message of a conversation's stream; ``seq`` counts from 1, without gaps."""

    conversation_id: str
    seq: int
    kind: MessageKind
    at: datetime
    body: Mapping[str, JsonValue] = field(repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """Give the message as clients get it."""
        head: dict[str, JsonValue] = {
            "seq": self.seq,
            "type": self.kind,
            "at": self.at.isoformat(),
        }
        return {**head, **self.body}


@dataclass(frozen=True)
class StoreUsage:
    """What a conversation keeps: uploads, all versions of shared files; results and messages."""

    share_bytes: int = 0
    shares: int = 0
    upload_bytes: int = 0
    uploads: int = 0
    result_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """What counts for the capacity: the files."""
        return self.share_bytes + self.upload_bytes


@dataclass(frozen=True)
class AuditEntry:
    """Something that happened, to be written down.

    Attributes
    ----------
    actor : str
        The owner who did it; "" for the conversation's, or nobody.
    detail : mapping
        Sizes, codes, counts: nothing that a user has written.
    """

    at: datetime
    action: str
    actor: str
    conversation_id: str
    detail: Mapping[str, JsonValue]

    def to_text(self) -> str:
        """Give the detail as it is kept and sealed."""
        return json.dumps(self.detail, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class AuditRow:
    """A row of the audit log; ``at`` is in microseconds since 1970, ``seal`` in hexadecimal."""

    number: int
    at: int
    action: str
    actor: str
    conversation_id: str
    detail: str
    seal: str = ""


class Strength(enum.StrEnum):
    """How well a limit holds."""

    ENFORCED = "enforced"
    WEAKER = "weaker"  # something holds, but less than it could: the mechanism says what
    NOT_ENFORCED = "not_enforced"


@dataclass(frozen=True)
class Enforced:
    """What holds one limit of a running sandbox.

    Attributes
    ----------
    limit : str
        One of ``LIMITS``.
    mechanism : str
        What holds it, in plain words; safe to show.
    value : str
        The limit itself, "" where there is no number or name for it.
    read_back : bool
        Whether the kernel was asked about this very sandbox; False: so it was asked for.
    """

    limit: str
    strength: Strength
    mechanism: str
    value: str = ""
    read_back: bool = False


LIMITS = (
    *("memory", "swap", "processors", "processes", "disk", "file_size", "open_files"),
    *("system_calls", "capabilities", "user", "network", "kernel"),
)
"""Every limit that an engine has to account for: none may be missing from what it says."""
