"""The server's settings, for subcommands that run a server or work on its data.

Those on the line (``--Class.name=value``) go to a server as they are. The rule: what is wrong with
the settings is an error here as there. Jupyter only logs it, and the server, its files and its
directories would be those that nobody asked about.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NoReturn

from jupyter_server.serverapp import ServerApp
from traitlets.config import Configurable

from .. import _jupyter_server_extension_points
from .strict_app import StrictApp

_SETTING = re.compile(r"--([A-Za-z]\w*)\.([\w.]+)(=.*)?", re.DOTALL)


class UnknownSetting(ValueError):
    """A name that is no setting of ours, or one without a value."""


def split_settings(words: Sequence[str], own: str) -> tuple[list[str], list[str]]:
    """Give the words for the subcommand itself, and those for the server.

    Parameters
    ----------
    words : sequence of str
        The command line.
    own : str
        The subcommand's class, whose settings stay with it.

    Raises
    ------
    UnknownSetting
        A setting of the server is not one of this extension's.
    """
    extension = _jupyter_server_extension_points()[0]["app"]
    classes: tuple[type[Configurable], ...] = (extension, *extension.classes)
    names = {
        f"{each.__name__}.{trait}"
        for each in classes
        for trait in each.class_trait_names(config=True)
    }
    of_command, of_server = [], []
    for word in words:
        found = _SETTING.fullmatch(word)
        if found is None or found[1] == own:
            of_command.append(word)
        elif f"{found[1]}.{found[2]}" not in names:
            raise UnknownSetting(f"there is no setting {found[1]}.{found[2]}")
        elif found[3] is None:
            raise UnknownSetting(f"write {found[0]}=value")
        else:
            of_server.append(word)
    return of_command, of_server


def configured_extension(words: Sequence[str] = ()) -> Any:
    """Give the extension (``SandboxApp``) as a server would configure it; starts and makes nothing.

    Parameters
    ----------
    words : sequence of str
        Settings on the server's line, ``--Class.name=value``.
    """
    server = ServerApp(log_level=logging.CRITICAL)
    server.parse_command_line([*words])
    command_line = deepcopy(server.config)
    server.load_config_file()
    server.update_config(command_line)
    extension = _jupyter_server_extension_points()[0]["app"](log_level=logging.CRITICAL)
    extension._link_jupyter_server_extension(server)
    return extension


class ServerSettingsApp(StrictApp):
    """Base of subcommands that take settings of the server on their line."""

    settings_given: list[str]

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Parse the arguments; what are the server's settings is kept for it."""
        words = sys.argv[1:] if argv is None else argv
        try:
            own, self.settings_given = split_settings(words, type(self).__name__)
        except UnknownSetting as exc:
            self.refuse([str(exc)])
        super().parse_command_line(own)

    def refuse(self, problems: Sequence[str]) -> NoReturn:
        """Say what is wrong with the settings, and exit with 1."""
        for problem in problems:
            print(f"{self.name.replace('-', ' ')}: {problem}", file=sys.stderr)
        raise SystemExit(1)
