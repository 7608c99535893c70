"""When sandboxes rest, when they end, and how many there may be."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, Enum, Float, Int, TraitError, Unicode, validate
from traitlets.config import Configurable

from ..models import IdleTimes, Lifecycle
from .checks import name_of, require_not_negative, require_within

_LONGEST_SECONDS = 10 * 366 * 86400.0
_LEAST_SECONDS = 60.0  # servers note what they use every 15 s, and look every 20 s
_RANGES = {
    "max_busy_seconds": (0, _LONGEST_SECONDS),
    "keep_awake_seconds": (0, _LONGEST_SECONDS),
    "evict_idle_seconds": (0, _LONGEST_SECONDS),
    "memory_stalled_percent": (0, 100),
    "warm_pool_size": (0, 1000),
    "reap_seconds": (5, 3600),
}


class SandboxLifecycle(Configurable):
    """When a sandbox that nobody uses is suspended and ended, and how many there may be."""

    suspend_seconds = Float(
        900.0,
        help="A sandbox that was not used for so long stands still until its next use, in seconds; "
        "nothing is lost. 0: never. Less frees processors (and memory, where the engine can) "
        "earlier; a use that wakes it takes some milliseconds more.",
    ).tag(config=True)
    terminate_seconds = Float(
        30 * 86400.0,
        help="A sandbox that was not used for so long is ended, in seconds: its workspace, "
        "packages and variables are lost; uploads and shared files stay. 0: never. Less frees "
        "memory and disk.",
    ).tag(config=True)

    max_busy_seconds = Float(
        7200.0,
        help="A background job that keeps a processor at work counts as use for so long after the "
        "last call or cell, in seconds. 0: not at all. More lets long jobs finish unattended; one "
        "that never ends costs processor time for longer.",
    ).tag(config=True)
    keep_awake_seconds = Float(
        86400.0,
        help="The longest that a user may keep a sandbox from being suspended and ended, in "
        "seconds from the request (`keep_awake_until`). 0: not at all.",
    ).tag(config=True)
    group_times = Dict(
        key_trait=Unicode(),
        value_trait=Dict(key_trait=Unicode(), value_trait=Float()),
        help="Other times for the users of a group: its name to `suspend_seconds` and "
        "`terminate_seconds`, of which a missing one is as above. Of several groups the longest "
        "time wins. Groups are known at requests: what applies is stored with a conversation at "
        "its uses.",
    ).tag(config=True)

    running_per_user = Int(
        64,
        help="Sandboxes of one user that may run at once; the least recently used idle one is "
        "suspended for a further one, else its call waits. 0: any number. Less leaves more of the "
        "processors to others; suspended ones are woken in some milliseconds.",
    ).tag(config=True)
    running_total = Int(
        200, help="Sandboxes of all users that may run at once; as `running_per_user`."
    ).tag(config=True)
    live_per_user = Int(
        200,
        help="Sandboxes of one user that there may be at once, suspended ones too; for a further "
        "one the least recently used idle one is ended (`evict_idle_seconds`), else its call "
        "waits. 0: any number. Each takes memory and disk.",
    ).tag(config=True)
    live_total = Int(
        1000,
        help="Sandboxes of all users that there may be at once; as `live_per_user`. Room is made "
        "among those of the users who have the most.",
    ).tag(config=True)
    place_wait_seconds = Float(
        20.0,
        help="How long a call waits for a place when all are taken by sandboxes in use, in "
        "seconds; then it is refused with 429 and `Retry-After`.",
    ).tag(config=True)
    place_queue = Int(
        100,
        help="Calls that may wait for a place at once on each server, a quarter of them of one "
        "user; more are refused at once.",
    ).tag(config=True)
    evict_idle_seconds = Float(
        600.0,
        help="To make room for another, only a sandbox that was not used for so long is ended, in "
        "seconds; its workspace is lost. More keeps work longer and refuses calls earlier. "
        "When the host's memory is almost used up, it does not count.",
    ).tag(config=True)
    memory_low_bytes = Int(
        0,
        help="Available memory of the host, in bytes, below which idle sandboxes are suspended, "
        "then ended, those of the users who take the most first; below half of it none is started "
        "or woken. 0 (the default): 5 % of the memory, at least 512 MiB. More keeps more for other "
        "programs.",
    ).tag(config=True)
    memory_stalled_percent = Float(
        20.0,
        help="Memory counts as short, too, when all programs of the host have waited for it for "
        "so many percent of the last ten seconds (pressure stall information, where the kernel "
        "has it). 0: not looked at.",
    ).tag(config=True)

    warm_pool_size = Int(
        0,
        help="So many sandboxes are kept ready by each server process, so that a first call takes "
        "milliseconds. Each takes the memory of an idle sandbox, with its Python kernel some 45 "
        "MiB, for as long as the server runs. 0: none; each sandbox is made by its first call.",
    ).tag(config=True)

    python_kernel = Enum(
        ("eager", "lazy"),
        default_value="eager",
        help="`eager`: the Python kernel is started in the background with its sandbox, so that "
        "the first `python` call does not wait for it (some 0.3 s). `lazy`: by the first `python` "
        "call or cell; a sandbox that only runs commands takes some 40 MiB less memory.",
    ).tag(config=True)

    reap_seconds = Float(
        300.0,
        help="How often a server looks for what crashes have left (sandboxes, directories, sockets "
        "that belong to nobody) and for sandboxes of servers that are gone, in seconds, 5 to 3600; "
        "also at its start. Less finds it earlier and asks the engine more often.",
    ).tag(config=True)

    @validate("suspend_seconds", "terminate_seconds")
    def _bounded(self, proposal: Any) -> Any:
        _require_time(name_of(proposal), proposal.value)
        return proposal.value

    @validate("group_times")
    def _known_times(self, proposal: Any) -> Any:
        for group, times in proposal.value.items():
            for name, seconds in times.items():
                where = f"SandboxLifecycle.group_times[{group!r}]"
                if name not in ("suspend_seconds", "terminate_seconds"):
                    raise TraitError(f"{where}: there is no {name!r}")
                _require_time(f"{where}[{name!r}]", seconds)
        return proposal.value

    @validate(
        *("running_per_user", "running_total", "live_per_user", "live_total"),
        *("place_wait_seconds", "place_queue", "memory_low_bytes"),
    )
    def _not_negative(self, proposal: Any) -> Any:
        return require_not_negative(proposal)

    @validate(*_RANGES)
    def _in_range(self, proposal: Any) -> Any:
        return require_within(proposal, *_RANGES[proposal.trait.name])

    def to_lifecycle(self) -> Lifecycle:
        """Give them as data."""
        given = {name: getattr(self, name) for name in self.trait_names(config=True)}
        usual = {name: given[name] for name in ("suspend_seconds", "terminate_seconds")}
        groups = {
            group: IdleTimes(**{**usual, **times}) for group, times in self.group_times.items()
        }
        return Lifecycle(**{**given, "group_times": groups})


def _require_time(name: str, seconds: float) -> None:
    if seconds and not _LEAST_SECONDS <= seconds <= _LONGEST_SECONDS:
        raise TraitError(
            f"{name} must be 0 (never) or {_LEAST_SECONDS:.0f} to {_LONGEST_SECONDS:.0f}"
        )
