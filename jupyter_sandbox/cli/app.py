"""``jupyter sandbox``: the list of the subcommands. Each is an application in its own file."""

from __future__ import annotations

import sys

from jupyter_core.application import JupyterApp

from jupyter_sandbox import __version__


class SandboxCLI(JupyterApp):
    """Run a subcommand; without one, say which there are and fail."""

    name = "jupyter-sandbox"
    version = __version__
    description = "A private Linux machine for every conversation with an AI assistant."
    examples = "jupyter sandbox build-image   # make the container image for the Docker engine"
    # Strings, so that `jupyter sandbox --help` need not import what it does not run.
    subcommands = {  # noqa: RUF012
        "build-image": (
            "jupyter_sandbox.cli.build_image.BuildImageApp",
            "Build the container image that the Docker engine makes sandboxes from.",
        ),
        "rotate-key": (
            "jupyter_sandbox.cli.rotate_key.RotateKeyApp",
            "Make a new master key for the stored files.",
        ),
        "enable": (
            "jupyter_sandbox.cli.policy.EnableApp",
            "Switch the sandbox on, for everybody who has chat access.",
        ),
        "disable": (
            "jupyter_sandbox.cli.policy.DisableApp",
            "Switch the sandbox off; nothing is lost.",
        ),
        "policy": (
            "jupyter_sandbox.cli.policy.PolicyApp",
            "Check the file of flags and grants (`policy check`).",
        ),
        "audit": (
            "jupyter_sandbox.cli.audit.AuditApp",
            "Check the audit log, or print it (`audit verify`, `audit export`).",
        ),
        "list": ("jupyter_sandbox.cli.sandboxes.ListApp", "List the sandboxes."),
        "show": ("jupyter_sandbox.cli.sandboxes.ShowApp", "Show the sandbox of a conversation."),
        "suspend": (
            "jupyter_sandbox.cli.sandboxes.SuspendApp",
            "Let a sandbox stand still; the next use wakes it.",
        ),
        "terminate": (
            "jupyter_sandbox.cli.sandboxes.TerminateApp",
            "End a sandbox; uploads and shared files stay.",
        ),
        "mcp": (
            "jupyter_sandbox.cli.mcp.McpApp",
            "Give the tools to an MCP client over stdin and stdout.",
        ),
        "replay": (
            "jupyter_sandbox.cli.replay.ReplayApp",
            "Make the calls of a conversation's notebook again and say what differs.",
        ),
        "doctor": (
            "jupyter_sandbox.cli.doctor.DoctorApp",
            "Check that sandboxes work here, and say what holds them and what does not.",
        ),
        "demo": (
            "jupyter_sandbox.cli.demo.DemoApp",
            "Show a whole job of an assistant, from a CSV to a shared chart and workbook.",
        ),
    }

    def start(self) -> None:
        """Hand over to the subcommand."""
        super().start()  # raises NoStart when there was one
        self.print_help()
        if self.extra_args:
            print(f"\nThere is no subcommand {self.extra_args[0]!r}.", file=sys.stderr)
        self.exit(1)


main = SandboxCLI.launch_instance

if __name__ == "__main__":
    main()
