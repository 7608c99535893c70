"""What is wrong with a server's settings and places, as lines that say where each setting was made.

The rule: it reads what the extension was given, and makes and changes nothing. Commands ask it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_server.extension.application import ExtensionApp
from traitlets.config.loader import Config

from ..directories import DATA_NAMES, RUNTIME_NAMES, find_problem
from ..engines.bubblewrap import BubblewrapEngine
from ..engines.records import Records
from ..policy.certificates import BundleRefused
from ..sandbox.client_settings import read_trusted
from ..settings.problems import (
    find_misplaced,
    find_unread_files,
    find_wrong_names,
    find_wrong_values,
    place_of,
)
from ..stores.connections import why_wrong_url

if TYPE_CHECKING:
    from .extension import SandboxApp

_Wrong = tuple[str, str]  # a setting, and why it is wrong or ""


def find_wrong_settings(app: SandboxApp, refused: Mapping[str, str]) -> list[str]:
    """Give the settings that are wrong or have no effect, and the files of which nothing counts.

    Parameters
    ----------
    refused : mapping
        The settings of the extension's own class that were refused, with the reason.
    """
    classes = list(dict.fromkeys((type(app), *type(app).classes)))
    wrong = list(find_wrong_names(app.config, classes))
    for each in classes:
        section = app.config.get(each.__name__, {})
        values = refused if each is type(app) else find_wrong_values(each, section)
        wrong += [(f"{each.__name__}.{name}".rstrip("."), why) for name, why in values.items()]
    if not refused.get("extra_ca_bundle"):
        try:
            read_trusted(app.extra_ca_bundle)
        except BundleRefused as exc:
            wrong.append(("SandboxApp.extra_ca_bundle", f"{app.extra_ca_bundle} {exc}"))
    wrong.append(("SandboxApp.db_url", why_wrong_url(app.db_url) if app.db_url else ""))
    return [*_wrong_files(app, classes), *_placed(app, wrong)]


def find_wrong_places(app: SandboxApp) -> list[str]:
    """Give the directories and files of the server's settings that cannot be used."""
    problem = find_problem(app.data_dir, DATA_NAMES)
    root_dir = getattr(app.serverapp, "root_dir", "")
    if not problem and root_dir and os.path.realpath(root_dir) == os.path.realpath(app.data_dir):
        problem = f"{app.data_dir} is the folder of the server's notebooks: users read all of it"
    wrong = [
        ("SandboxApp.data_dir", problem),
        ("SandboxApp.runtime_dir", find_problem(app.runtime_dir, RUNTIME_NAMES)),
        ("SandboxApp.master_key_file", _why_no_file(app.master_key_file)),
        ("SandboxApp.policy_file", _why_no_file(app.policy_file)),
    ]
    return _placed(app, wrong)


def find_wrong_places_of(engine: BubblewrapEngine, app: SandboxApp) -> list[str]:
    """Give the directories of the embedded engine that cannot be used."""
    state = find_problem(engine.state_dir, engine.STATE_NAMES, has_id=False)
    if not state and (foreign := Records(Path(engine.state_dir)).find_foreign()):
        state = f"{foreign} is not of this engine: name a directory of its own"
    data = find_problem(engine.data_dir, engine.DATA_NAMES, has_id=False)
    wrong = [("BubblewrapEngine.state_dir", state), ("BubblewrapEngine.data_dir", data)]
    if os.geteuid() == 0:
        stage = find_problem(engine.stage_dir, engine.STAGE_NAMES, may_not=0o022, has_id=False)
        wrong.append(("BubblewrapEngine.stage_dir", stage))
    return _placed(app, wrong)


def _wrong_files(app: SandboxApp, classes: list[type]) -> list[str]:
    server = app.serverapp
    assert server is not None
    files, folders = _config_files(app), server.config_file_paths
    names, found = ["jupyter_config", app.config_file_name], []
    if server.config_file:  # --config=FILE, in the place of the usual one
        stem = os.path.splitext(os.path.abspath(server.config_file))[0]
        found += find_unread_files([os.path.basename(stem)], [os.path.dirname(stem)], files)
        if not any(os.path.exists(f"{stem}{ending}") for ending in (".py", ".json")):
            found.append(f"{server.config_file}: there is no such file (--config)")
    else:
        names.append(server.config_file_name)
    found += find_unread_files(names, folders, files)
    others = {each.config_file_name for each in _other_apps(app)} - {*names, ""}
    found += find_unread_files(sorted(others), folders, files, only_of=classes)
    found += find_misplaced(server.config_file_name, folders, classes)
    return found


def _why_no_file(path: str) -> str:
    """Say why a path cannot be that of a file of this server; "" if it can, or none is set."""
    if not path:
        return ""
    if not os.path.isabs(path):
        return f"{path!r} is not an absolute path"
    folder = os.path.dirname(path)
    return "" if os.path.isdir(folder) else f"{folder} is no directory"


def _placed(app: SandboxApp, wrong: Iterable[_Wrong]) -> list[str]:
    assert app.serverapp is not None
    files, command_line = _config_files(app), Config()
    for each in (app.serverapp, app):
        command_line.merge(each.cli_config)
    lines = []
    for setting, reason in wrong:
        if reason:
            place = place_of(setting, files, command_line)
            text = f"{setting}: {reason.removeprefix(f'{setting}: ')}"
            lines.append(f"{place}: {text}" if place else text)
    return lines


def _config_files(app: SandboxApp) -> list[str]:
    """Give the files of settings that were read, the one that wins last."""
    assert app.serverapp is not None
    apps = [*_other_apps(app), app.serverapp, app]
    return list(dict.fromkeys(file for each in apps for file in each.loaded_config_files))


def _other_apps(app: SandboxApp) -> list[ExtensionApp]:
    """Give the other extensions of this server that read files of settings."""
    manager = getattr(app.serverapp, "extension_manager", None)
    points = {} if manager is None else manager.extension_points
    apps = [point.app for point in points.values()]
    return [each for each in apps if isinstance(each, ExtensionApp) and each is not app]
