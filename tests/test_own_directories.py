"""A server takes over no directory that is not its own, and changes none that it did not make."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jupyter_sandbox import testing
from jupyter_sandbox.cli.server_settings import configured_extension
from jupyter_sandbox.directories import (
    DATA_NAMES,
    RUNTIME_NAMES,
    find_problem,
    make_private,
    server_id,
)
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.records import Records
from jupyter_sandbox.errors import Misconfigured, Unavailable
from jupyter_sandbox.sandbox.plaintext import PlaintextDirs
from tests.attacks import attack
from tests.conftest import Api
from tests.jupyter_servers import in_directories


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "place"


def made(place: Path, mode: int, *names: str) -> None:
    place.mkdir()
    for name in names:
        (place / name).touch()
    place.chmod(mode)


def state_of(place: Path) -> tuple[int, list[str]]:
    return stat.S_IMODE(place.stat().st_mode), sorted(os.listdir(place))


def is_root() -> bool:
    return os.geteuid() == 0


@attack("T43", on="")
@pytest.mark.parametrize(
    ("mode", "names", "said"),
    [
        (0o1777, [], "chmod 700"),
        (0o755, [], "chmod 700"),
        (0o750, [], "chmod 700"),
        (0o701, [], "chmod 700"),
        (0o755, ["server-id", "sandbox.db"], "chmod 700"),
        (0o700, ["note.ipynb"], "holds other things (note.ipynb)"),
        (0o1777, ["note.ipynb"], "holds other things (note.ipynb)"),
        (0o700, [".bashrc"], "holds other things"),
        (0o700, ["sandbox.db", "thesis.tex"], "holds other things (thesis.tex)"),
        (0o700, ["my-server-id"], "holds other things"),
    ],
)
def test_a_directory_that_is_somebodys_is_refused_and_stays_as_it_is(place, mode, names, said):
    made(place, mode, *names)
    before = state_of(place)
    with pytest.raises(Misconfigured) as refused:
        make_private(place)
    (problem,) = refused.value.problems
    assert said in problem
    assert str(place) in problem
    assert state_of(place) == before


@attack("T43", on="")
@pytest.mark.parametrize("path", ["", ".", "data", "./data", "../data", "~/data"])
def test_a_relative_path_is_refused_and_nothing_is_made(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_problem(path, DATA_NAMES) == f"{path!r} is not an absolute path"
    with pytest.raises(Misconfigured, match="not configured"):
        make_private(Path(path))
    assert os.listdir(tmp_path) == []
    for setting in ("SandboxApp.data_dir", "SandboxApp.runtime_dir"):
        words = [f"--SandboxApp.data_dir={tmp_path / 'd'}"] * (setting != "SandboxApp.data_dir")
        if path.startswith("~"):
            continue  # on the command line it is a home
        found = configured_extension([*words, f"--{setting}={path}"]).find_wrong_places()
        assert f"the command line: {setting}: {path!r} is not an absolute path" in found
    assert os.listdir(tmp_path) == []


@attack("T43", on="")
def test_a_link_a_file_and_what_cannot_be_made_are_refused(place, tmp_path):
    made(place, 0o700)
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, said in (
        (tmp_path / "link", "is a link"),
        (tmp_path / "file", "is no directory"),
        (tmp_path / "file" / "deep", ""),
        (tmp_path / "dangling", "is a link"),
        (Path("/tmp/\0"), "cannot be used"),
    ):
        problem = find_problem(path, DATA_NAMES)
        assert problem
        assert said in problem
        with pytest.raises(Misconfigured):
            make_private(path)
    with pytest.raises(Misconfigured):
        make_private(Path("/proc/nowhere/data"))
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "link", "place"]


class TestAServer:
    @pytest.fixture
    def engine_name(self):
        return "auto"

    @pytest.fixture
    def sandbox_config(self, short_dir):
        made(short_dir / "data", 0o1777, "note.ipynb")
        return {"SandboxApp": in_directories(short_dir)}

    @attack("T43", on="")
    @pytest.mark.own_server
    async def test_it_serves_nothing_until_its_directories_are_its_own(
        self, short_dir, jp_serverapp, jp_fetch
    ):
        data, run = short_dir / "data", short_dir / "run"
        api = Api(jp_fetch)
        for change, said in (
            (lambda: None, "SandboxApp.data_dir: "),
            ((data / "note.ipynb").unlink, "chmod 700"),
            (lambda: (data.chmod(0o700), run.chmod(0o755)), "SandboxApp.runtime_dir: "),
        ):
            change()
            before = state_of(data)
            status, told = await api.json("GET", "conversations")
            assert status == 503
            assert said in "".join(told["problems"])
            assert state_of(data) == before
        run.chmod(0o700)
        app = jp_serverapp.web_app.settings["jupyter_sandbox"]
        app._sandbox_engine = testing.FakeEngine()
        assert (await api.json("GET", "conversations"))[0] == 200
        assert (data / "server-id").is_file()


@pytest.mark.skipif(not is_root(), reason="only root can give a directory away")
@attack("T43", on="")
def test_another_users_directory_is_refused(place):
    made(place, 0o700)
    os.chown(place, 65534, 65534)
    assert "belongs to another user" in find_problem(place, DATA_NAMES)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["lost+found"],
        ["policy.json"],
        ["master.key"],
        ["server-id", "anything else"],
        ["sandbox.db", "sandbox.db-wal", "master.key", "vault", "servers", "bubblewrap"],
        ["audit.mark", "runtime-dir", ".master.key.0123456789abcdef", "sandbox.db"],
    ],
)
def test_an_installation_of_ours_and_what_is_put_there_before_the_first_start_are_used(
    place, names
):
    made(place, 0o700, *names)
    make_private(place)
    assert state_of(place) == (0o700, sorted(names))
    server_id(place)
    make_private(place)


@attack("T43", on="")
def test_a_runtime_directory_is_one_or_becomes_one(place, tmp_path):
    names = ["guest-0123456789abcdef", ".site-0123456789abcdef.0123456789abcdef", "0123456789ab"]
    made(place, 0o700, *names)
    make_private(place, RUNTIME_NAMES)
    (place / "note.ipynb").touch()
    with pytest.raises(Misconfigured):
        make_private(place, RUNTIME_NAMES)
    for shared in ("/tmp", "/dev/shm"):
        before = stat.S_IMODE(os.stat(shared).st_mode)
        assert find_problem(shared, RUNTIME_NAMES)
        assert stat.S_IMODE(os.stat(shared).st_mode) == before


@attack("T43", on="")
def test_a_directory_for_plaintext_that_others_may_enter_is_refused_not_changed(place):
    made(place, 0o755)
    with pytest.raises(Unavailable, match="chmod 700"):
        PlaintextDirs(place).make("0" * 32)
    assert state_of(place) == (0o755, [])


@attack("T43", on="")
def test_the_engines_directories_are_its_own_too(place, tmp_path):
    """What has no record is swept away, so nobody else's may lie in a sandbox's place."""
    made(place, 0o700)
    (place / ("ab" * 16)).mkdir()
    (place / ("ab" * 16) / "cached.bin").touch()  # a cache whose directories are named by MD5
    assert find_problem(place, BubblewrapEngine.STATE_NAMES) == ""
    assert Records(place).find_foreign() == place / ("ab" * 16)
    (place / ("ab" * 16) / "cached.bin").rename(place / ("ab" * 16) / "sandbox.json")
    assert Records(place).find_foreign() is None

    data, run = tmp_path / "data", tmp_path / "run"
    words = [f"--SandboxApp.data_dir={data}", f"--SandboxApp.runtime_dir={run}"]
    words.append("--SandboxApp.engine=bubblewrap")
    assert configured_extension(words).find_wrong_places() == []
    for name in ("state_dir", "data_dir", *(["stage_dir"] if is_root() else [])):
        found = configured_extension([*words, f"--BubblewrapEngine.{name}=/usr/lib"])
        (problem,) = found.find_wrong_places()
        assert problem.startswith(f"the command line: BubblewrapEngine.{name}: /usr/lib holds")
    for name in ("master_key_file", "policy_file"):
        for path, said in (("a/b", "not an absolute path"), ("/nowhere/b", "is no directory")):
            found = configured_extension([*words, f"--SandboxApp.{name}={path}"])
            (problem,) = found.find_wrong_places()
            assert problem.startswith(f"the command line: SandboxApp.{name}: ")
            assert said in problem
    made(data, 0o700)
    words.append(f"--ServerApp.root_dir={data}")
    (problem,) = configured_extension(words).find_wrong_places()
    assert "the folder of the server's notebooks" in problem
    assert not run.exists()


@attack("T43", on="")
@pytest.mark.parametrize(
    "setting",
    [
        "SandboxApp.data_dir={}/sub",
        "SandboxApp.data_dir={}/../root/a/b",
        "SandboxApp.runtime_dir={}/run",
        "SandboxApp.master_key_file={}/k.key",
        "SandboxApp.policy_file={}/policy.json",
        "SandboxApp.db_url=sqlite:///{}/x.db",
        "BubblewrapEngine.state_dir={}/state",
        "BubblewrapEngine.data_dir={}/files",
    ],
)
def test_nothing_of_ours_lies_where_jupyter_serves_files(setting, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    words = [f"--ServerApp.root_dir={root}", "--SandboxApp.engine=bubblewrap"]
    for name in ("data", "run"):
        if f"SandboxApp.{name}" not in setting and f"{name}time" not in setting:
            words.append(f"--SandboxApp.{name.replace('run', 'runtime')}_dir={tmp_path / name}")
    found = configured_extension([*words, f"--{setting.format(root)}"]).find_wrong_places()
    problem, *_ = found  # the data of an engine lie in its state_dir
    assert problem.startswith(f"the command line: {setting.partition('=')[0]}: ")
    assert "the folder of the server's notebooks" in problem
    assert list(root.iterdir()) == []
    if ".." in setting:
        return
    hidden = setting.format(root).replace(str(root), f"{root}/.local")
    (root / ".local").mkdir()  # Jupyter serves none of it
    assert configured_extension([*words, f"--{hidden}"]).find_wrong_places() == []


@attack("T43", on="")
@pytest.mark.parametrize("name", ["master_key_file", "policy_file"])
def test_a_pipe_is_no_file_of_ours(name, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [f"--SandboxApp.{each}={tmp_path / each}" for each in ("data_dir", "runtime_dir")]
    found = configured_extension([*words, f"--SandboxApp.{name}={pipe}"]).find_wrong_places()
    assert [problem.partition(": ")[2] for problem in found] == [
        f"SandboxApp.{name}: {pipe} is no regular file"
    ]
