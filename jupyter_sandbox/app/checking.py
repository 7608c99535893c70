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
from ..stores.connections import sqlite_path, why_wrong_url

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
    data_dir, runtime_dir = app.data_dir, app.runtime_dir
    wrong = [
        ("SandboxApp.data_dir", find_problem(data_dir, DATA_NAMES) or _why_served(app, data_dir)),
        (
            "SandboxApp.runtime_dir",
            find_problem(runtime_dir, RUNTIME_NAMES) or _why_served(app, runtime_dir),
        ),
        ("SandboxApp.db_url", _why_served(app, sqlite_path(app.db_url))),
    ]
    for name in ("master_key_file", "policy_file"):
        path = getattr(app, name)
        wrong.append((f"SandboxApp.{name}", _why_no_file(path) or _why_served(app, path)))
    return _placed(app, wrong)


def find_wrong_places_of(engine: BubblewrapEngine, app: SandboxApp) -> list[str]:
    """Give the directories of the embedded engine that cannot be used."""
    state = find_problem(engine.state_dir, engine.STATE_NAMES, has_id=False)
    if not state and (foreign := Records(Path(engine.state_dir)).find_foreign()):
        state = f"{foreign} is not of this engine: name a directory of its own"
    data = find_problem(engine.data_dir, engine.DATA_NAMES, has_id=False)
    wrong = [
        ("BubblewrapEngine.state_dir", state or _why_served(app, engine.state_dir)),
        ("BubblewrapEngine.data_dir", data or _why_served(app, engine.data_dir)),
    ]
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
    if not os.path.isdir(folder):
        return f"{folder} is no directory"
    return f"{path} is no regular file" if os.path.exists(path) and not os.path.isfile(path) else ""


def _why_served(app: SandboxApp, path: str | Path) -> str:
    """Say why users could read and change a path as one of their notebooks; "" if they cannot.

    Jupyter serves no hidden files unless it is told to.
    """
    root_dir = getattr(app.serverapp, "root_dir", "")
    if not root_dir or not str(path):
        return ""
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root_dir)).split(os.sep)
    if inside[0] == os.pardir:
        return ""
    contents = getattr(app.serverapp, "contents_manager", None)
    is_hidden = any(name.startswith(".") for name in inside if name != os.curdir)
    if is_hidden and not getattr(contents, "allow_hidden", False):
        return ""
    return (
        f"{path} lies in the folder of the server's notebooks ({root_dir}), where users can read "
        "and change it: name a place outside"
    )


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
