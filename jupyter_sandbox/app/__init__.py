"""The extension of Jupyter Server: its settings and routes, and all parts of a server, built."""

from .extension import SandboxApp

__all__ = ["SandboxApp"]
