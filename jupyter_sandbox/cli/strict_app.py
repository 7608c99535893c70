"""A Jupyter application that refuses a mistyped command line instead of warning and going on.

traitlets only logs an unknown ``--option value`` or ``--Class.name``: a build would start with
settings that nobody asked for. argparse's own errors exit with 2; every bad input of ours exits
with 1.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from jupyter_core.application import JupyterApp
from traitlets.config.loader import KVArgParseConfigLoader


class _StrictLoader(KVArgParseConfigLoader):
    """The loader with its hook for unknown options filled in, as its documentation proposes."""

    def _handle_unrecognized_alias(self, arg: str) -> NoReturn:
        self.parser.error(f"unknown option --{arg}")


class StrictApp(JupyterApp):
    """Base of our subcommands: an unknown option is an error; usage errors exit with 1."""

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Parse the arguments; exits with 1 and a usage message on bad ones."""
        try:
            super().parse_command_line(argv)
        except SystemExit as exc:
            raise SystemExit(1 if exc.code == 2 else exc.code) from None
        known = {each.__name__ for each in (*type(self).__mro__, *self.classes)}
        for section, values in self.cli_config.items():
            for name in values:
                if section not in known or not self.has_trait(name):
                    print(f"unknown option --{section}.{name}", file=sys.stderr)
                    raise SystemExit(1)

    def _create_loader(
        self, argv: list[str] | None, aliases: Any, flags: Any, classes: Any
    ) -> KVArgParseConfigLoader:
        return _StrictLoader(
            argv, aliases, flags, classes=classes, log=self.log, subcommands=self.subcommands
        )
