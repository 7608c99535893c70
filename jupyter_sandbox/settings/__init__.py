"""Settings of administrators as traits, and the frozen data that the layers get from them.

Sizes are in bytes, times in seconds. Set them as ``c.SandboxLimits.command_seconds = 60`` in
``jupyter_server_config.py`` or as ``--SandboxLimits.command_seconds=60``.
"""

from .egress import SandboxEgress
from .lifecycle import SandboxLifecycle
from .limits import SandboxLimits
from .previews import SandboxPreviews
from .resources import SandboxResources

__all__ = [
    "SandboxEgress",
    "SandboxLifecycle",
    "SandboxLimits",
    "SandboxPreviews",
    "SandboxResources",
]
