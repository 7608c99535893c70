"""What one call may take and give."""

from __future__ import annotations

from typing import Any

from traitlets import Float, Int, validate
from traitlets.config import Configurable

from ..models import Limits
from .checks import require_not_negative, require_positive, require_within

_MIB = 1024**2
_GIB = 1024**3


class SandboxLimits(Configurable):
    """What one call may take and give."""

    command_seconds = Float(
        600.0,
        help="Longest time of a command or cell, in seconds. More lets long jobs finish in one "
        "call; a stuck one holds its sandbox longer.",
    ).tag(config=True)
    output_bytes = Int(
        1_048_576,
        help="Output of one command or cell that is shown, in bytes; the whole is kept in a file "
        "inside. More costs the model's context.",
    ).tag(config=True)
    view_bytes = Int(16_000, help="Text that one `view` shows, in bytes.").tag(config=True)
    share_files = Int(20, help="Files that one `share_files` may name.").tag(config=True)
    share_bytes = Int(
        4 * _GIB, help="Largest file that can be shared, in bytes; it is copied to the host's disk."
    ).tag(config=True)
    capacity_bytes = Int(
        5 * _GIB, help="Uploads and shared files of one conversation together, in bytes."
    ).tag(config=True)
    write_bytes = Int(
        8 * _MIB, help="Longest text that `create_file` and `str_replace` take, in bytes."
    ).tag(config=True)
    upload_bytes = Int(
        25_000_000, help="Largest file that can be uploaded, in bytes; more is refused with 413."
    ).tag(config=True)
    result_bytes = Int(
        256 * _MIB,
        help="Results and messages that are kept of one conversation, in bytes of the database. Of "
        "more the oldest go, pictures first; the newest result stays.",
    ).tag(config=True)
    owner_result_bytes = Int(
        2 * _GIB,
        help="The same of all conversations of one user; never less than `result_bytes`. Of more "
        "the results and messages of the conversation that was used longest ago go.",
    ).tag(config=True)
    calls_at_once = Int(
        64, help="Calls of one conversation that may run at the same time; more get 429."
    ).tag(config=True)
    calls_per_minute = Int(
        6000,
        help="Calls of tools that one user may begin in a minute on average, on each server; more "
        "get 429 with `Retry-After`. 0: any number. Less keeps a run-away assistant from its "
        "neighbours; who has waited may make a whole minute's worth at once.",
    ).tag(config=True)
    conversations_per_hour = Int(
        600,
        help="Conversations that one user may make in an hour on average, on each server; more get "
        "429 with `Retry-After`. 0: any number. Each may have a sandbox.",
    ).tag(config=True)

    @validate(
        "command_seconds",
        "view_bytes",
        "share_files",
        "share_bytes",
        "capacity_bytes",
        "write_bytes",
        "upload_bytes",
        "result_bytes",
        "owner_result_bytes",
        "calls_at_once",
    )
    def _positive(self, proposal: Any) -> Any:
        return require_positive(proposal)

    @validate("calls_per_minute", "conversations_per_hour")
    def _not_negative(self, proposal: Any) -> Any:
        return require_not_negative(proposal)

    @validate("output_bytes")
    def _enough_output(self, proposal: Any) -> Any:
        return require_within(proposal, 4096, 16 * _MIB)

    def to_limits(self) -> Limits:
        """Give them as data."""
        given = {name: getattr(self, name) for name in self.trait_names(config=True)}
        of_owner = max(self.owner_result_bytes, self.result_bytes)
        return Limits(**{**given, "owner_result_bytes": of_owner})
