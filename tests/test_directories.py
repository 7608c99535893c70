"""Directories of a server, and the database that belongs to them."""

from __future__ import annotations

import os
import stat

import pytest

from jupyter_sandbox.directories import (
    choose_runtime_dir,
    has_stored_files,
    make_private,
    remember_runtime_dir,
    server_id,
)
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.stores.connections import Connections
from jupyter_sandbox.stores.installation import require_installation
from tests.database_url import url_of


def test_a_server_looks_for_sockets_where_the_one_before_it_had_them(tmp_path):
    data, session, service = (tmp_path / name for name in ("data", "session", "service"))
    for directory in (data, session, service):
        directory.mkdir()
    environ = {"XDG_RUNTIME_DIR": "/tmp"}
    first = choose_runtime_dir(data, environ)
    assert str(first) == "/tmp/jupyter-sandbox"
    remember_runtime_dir(data, session)
    assert choose_runtime_dir(data, environ) == session
    assert choose_runtime_dir(data, {}) == session
    remember_runtime_dir(data, service)
    assert choose_runtime_dir(data, environ) == service
    service.rmdir()
    assert choose_runtime_dir(data, environ) == first, "it is gone, and its sandboxes with it"
    assert sorted(os.listdir(data)) == ["runtime-dir"]


@pytest.mark.parametrize("text", ["", "relative/path\n", "\0\n", "/dev/null\n", "/nowhere\n"])
def test_a_note_that_names_no_directory_of_ours_is_left_alone(tmp_path, text):
    (tmp_path / "runtime-dir").write_text(text)
    assert choose_runtime_dir(tmp_path, {"XDG_RUNTIME_DIR": "/tmp"}).name == "jupyter-sandbox"


def test_a_long_session_directory_is_too_long_for_sockets(tmp_path):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    assert long not in choose_runtime_dir(tmp_path, {"XDG_RUNTIME_DIR": str(long)}).parents


def test_a_directory_is_made_private(tmp_path):
    for _ in range(2):
        make_private(tmp_path / "new" / "deep")
    assert stat.S_IMODE((tmp_path / "new" / "deep").stat().st_mode) == 0o700


def test_the_id_of_an_installation_stays(tmp_path):
    assert server_id(tmp_path) == server_id(tmp_path)
    assert len(server_id(tmp_path)) == 16


async def test_a_database_belongs_to_the_installation_that_came_first(tmp_path):
    connections = [Connections(url_of(tmp_path / "db")) for _ in range(2)]
    for each in connections:
        await each.open()
    await require_installation(connections[0], "aa")
    await require_installation(connections[1], "aa")
    with pytest.raises(Unavailable, match=r"share SandboxApp\.data_dir"):
        await require_installation(connections[1], "bb")
    for each in connections:
        await each.close()


async def test_a_new_database_beside_stored_files_is_refused_and_leaves_them_alone(tmp_path):
    assert not has_stored_files(tmp_path / "vault")
    (tmp_path / "vault" / "conversation").mkdir(parents=True)
    assert has_stored_files(tmp_path / "vault")
    new, known = (Connections(url_of(tmp_path / name)) for name in ("new", "known"))
    for each in (new, known):
        await each.open()
    await require_installation(known, "aa")
    await require_installation(known, "aa", has_files=True)
    for _ in range(2):  # the refusal is no first visit
        with pytest.raises(Unavailable, match=r"set SandboxApp\.db_url to that one, restore"):
            await require_installation(new, "aa", has_files=True)
    (tmp_path / "vault" / "conversation").rmdir()
    assert not has_stored_files(tmp_path / "vault")
    await require_installation(new, "aa", has_files=False)
    for each in (new, known):
        await each.close()
