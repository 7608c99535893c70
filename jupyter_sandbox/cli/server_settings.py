"""The server's settings on the line of a subcommand that runs a server: ``--Class.name=value``.

They go to that server as they are. The rule: a name that is no setting of ours is an error. Jupyter
only logs it, and the server would be one that nobody asked about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from traitlets.config import Configurable

from .. import _jupyter_server_extension_points

_SETTING = re.compile(r"--([A-Z]\w*)\.(\w+)(=.*)?", re.DOTALL)


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
