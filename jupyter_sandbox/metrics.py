"""The Prometheus metrics that the server's ``/metrics`` shows; told by everybody, asking nobody.

The collectors are the process's, as Prometheus wants it. The rule: a label has a value of a closed
set, never an id, a user's name or a file's; what comes from inside a sandbox is looked up in the
set first, so that nobody can make series without number.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_START_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60)

TOOLS = frozenset(("bash", "view", "create_file", "str_replace", "share_files", "python"))
VERDICTS = frozenset(("allow", "deny", "cut", "fail"))
CODES = frozenset(
    (
        *("ok", "invalid_arguments", "unknown_tool", "unavailable", "limit_exceeded"),
        *("internal_error", "lost", "timeout", "cancelled", "refused", "kernel_died"),
        *("kernel_busy", "aborted", "not_absolute", "not_found", "not_a_directory"),
        *("is_a_directory", "not_a_file", "exists", "permission", "read_only", "no_space"),
        *("too_large", "link_loop", "name_too_long", "changed", "failed", "bad_request"),
        *("bad_range", "no_match", "many_matches", "not_encodable", "outside", "link"),
        *("not_shared", "bad_name", "disk_full", "not_kept"),
    )
)
REASONS = frozenset(
    (
        *("invalid_request", "bad_request", "unauthenticated", "forbidden", "token_required"),
        *("cross_origin", "not_found", "method_not_allowed", "too_large", "limit_exceeded"),
        *("bad_range", "internal_error", "feature_off", "unavailable", "unhealthy", "error"),
        *("disk_full", "misconfigured"),
    )
)
KINDS = frozenset(("sandbox", "directory", "socket", "remains", "mark", "file"))
OUTCOMES = frozenset(("adopted", "lost", "stilled", "given_up", "failed"))
OTHER = "other"

CALLS = Counter(
    "jupyter_sandbox_calls",
    "Calls of tools that are over, by the code of their result.",
    ("tool", "code"),
)
CALL_SECONDS = Histogram(
    "jupyter_sandbox_call_duration_seconds",
    "Time from a call's request to its result, of calls that reached a sandbox.",
    ("tool",),
    buckets=_SECONDS,
)
CALLS_RUNNING = Gauge("jupyter_sandbox_calls_running", "Calls of tools that run now.")
SANDBOXES = Gauge(
    "jupyter_sandbox_sandboxes",
    "Conversations in the database by the state of their sandbox, counted every 15 seconds.",
    ("state",),
)
PROVISION_SECONDS = Histogram(
    "jupyter_sandbox_provision_duration_seconds",
    "Time that making a new sandbox took, files in place.",
    ("outcome",),
    buckets=_START_SECONDS,
)
EVICTIONS = Counter(
    "jupyter_sandbox_evictions",
    "Idle sandboxes suspended or ended to make room: within a user's limit or that of all, or for "
    "the host's memory.",
    ("move", "cause"),
)
WAITING_FOR_PLACE = Gauge(
    "jupyter_sandbox_waiting_for_place", "Calls that wait until there is a place for a sandbox."
)
HOST_MEMORY_AVAILABLE = Gauge(
    "jupyter_sandbox_host_memory_available_bytes", "Memory of the host that is available."
)
POOL_TAKES = Counter(
    "jupyter_sandbox_pool_takes",
    "First calls that asked the warm pool: got a sandbox (hit) or none (miss); and sandboxes of it "
    "that were not fit to be given (unfit).",
    ("outcome",),
)
POOL_READY = Gauge(
    "jupyter_sandbox_pool_ready", "Sandboxes of the warm pool that could be given now."
)
UPLOADED_BYTES = Counter("jupyter_sandbox_uploaded_bytes", "Bytes of uploads that were kept.")
SHARED_BYTES = Counter("jupyter_sandbox_shared_bytes", "Bytes of files that were shared.")
DOWNLOADED_BYTES = Counter(
    "jupyter_sandbox_downloaded_bytes", "Bytes of files that were sent, previews included."
)
EGRESS_DECISIONS = Counter(
    "jupyter_sandbox_egress_decisions",
    "Connections that the egress proxy has logged, by its verdict; of a flood the first ones.",
    ("verdict",),
)
EGRESS_BYTES = Counter(
    "jupyter_sandbox_egress_bytes",
    "Bytes of those connections, to the host (up) and from it (down).",
    ("direction",),
)
REFUSED_REQUESTS = Counter(
    "jupyter_sandbox_refused_requests",
    "Requests answered with an error, by its code.",
    ("reason",),
)
KERNEL_CUT_OFFS = Counter(
    "jupyter_sandbox_kernel_cut_offs",
    "Kernels that were ended because they sent what no kernel sends.",
)
AUDIT_ROWS = Counter("jupyter_sandbox_audit_rows", "Rows that were written to the audit log.")
AUDIT_LOST = Counter(
    "jupyter_sandbox_audit_lost",
    "Entries that were not, because ten thousand waited for a database that fails.",
)


REAPED = Counter(
    "jupyter_sandbox_reaped",
    "Things that belonged to nobody any more and were removed, after crashes mostly.",
    ("kind",),
)
ADOPTED = Counter(
    "jupyter_sandbox_adopted",
    "Sandboxes that were there already when a server looked for them, by what became of them.",
    ("outcome",),
)


def count_call(tool: str, code: str, seconds: float | None) -> None:
    """Count a call that is over; ``seconds`` is None when it reached no sandbox."""
    tool = known(tool, TOOLS)
    _calls_of(tool, known(code, CODES)).inc()
    if seconds is not None:
        _seconds_of(tool).observe(seconds)


def count_egress(line: Mapping[str, object]) -> None:
    """Count a line of the egress proxy's log; a line of another kind is none."""
    verdict = line.get("verdict")
    if not isinstance(verdict, str):
        return
    EGRESS_DECISIONS.labels(known(verdict, VERDICTS)).inc()
    for direction in ("up", "down"):
        size = line.get(f"{direction}_bytes")
        if isinstance(size, int) and size > 0:
            EGRESS_BYTES.labels(direction).inc(size)


def count_refusal(code: str) -> None:
    """Count a request that was answered with an error."""
    REFUSED_REQUESTS.labels(known(code, REASONS | CODES)).inc()


def count_reaped(kind: str, count: int = 1) -> None:
    """Count what was removed because nobody had it any more."""
    REAPED.labels(known(kind, KINDS)).inc(count)


def count_adopted(outcome: str) -> None:
    """Count a sandbox that was there already."""
    ADOPTED.labels(known(outcome, OUTCOMES)).inc()


def show_states(counts: Mapping[str, int], states: Collection[str]) -> None:
    """Show how many conversations are in each of ``states``."""
    for state in states:
        SANDBOXES.labels(state).set(counts.get(state, 0))


@functools.cache  # the look-up by labels costs more than the count
def _calls_of(tool: str, code: str) -> Counter:
    return CALLS.labels(tool, code)


@functools.cache
def _seconds_of(tool: str) -> Histogram:
    return CALL_SECONDS.labels(tool)


def known(value: str, values: Collection[str]) -> str:
    """Give a value of the set; ``other`` for any that is none."""
    return value if value in values else OTHER
