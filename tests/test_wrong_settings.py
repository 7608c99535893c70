"""A wrong setting opens nothing: it is found wherever it stands, and then nothing is served or made.

What Jupyter makes of such settings is a line in its log and an extension with defaults.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys

import pytest
from jupyter_core.application import JupyterApp
from traitlets.config import Config, LoggingConfigurable

from jupyter_sandbox.cli.audit import AuditVerifyApp
from jupyter_sandbox.cli.demo import DemoApp
from jupyter_sandbox.cli.doctor import DoctorApp
from jupyter_sandbox.cli.policy import DisableApp, PolicyCheckApp
from jupyter_sandbox.cli.rotate_key import RotateKeyApp
from jupyter_sandbox.cli.server_settings import configured_extension
from jupyter_sandbox.routes import ROUTES
from tests.attacks import attack
from tests.conftest import Api
from tests.end_to_end.test_access import As, Users, every_method, url
from tests.jupyter_servers import RunningServer
from tests.server_process import ServerProcess

CONTRACT = "The sandbox is not configured correctly: ask your administrator."
FILE = "jupyter_server_config.py"


class SandboxedKernels(LoggingConfigurable):
    """Somebody else's class with a name like ours."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The only directory of settings; where the command is typed lie notebooks."""
    settings, notebooks = tmp_path / "settings", tmp_path / "notebooks"
    for each in (settings, notebooks):
        each.mkdir()
    (notebooks / "note.ipynb").touch()
    monkeypatch.chdir(notebooks)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(settings))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    return settings


def problems(*words: str) -> list[str]:
    return configured_extension(words).find_wrong_settings()


# --- what is found


@attack("T41", on="")
@pytest.mark.parametrize(
    ("line", "setting", "said"),
    [
        ("c.SandboxApp.engine = 'dokcer'", "SandboxApp.engine", "not the str 'dokcer'"),
        ("c.SandboxApp.owner_mode = 'user'", "SandboxApp.owner_mode", "not the str 'user'"),
        ("c['SandboxApp']['engine'] = 'd'", "SandboxApp.engine", "not the str 'd'"),
        ("s = c.SandboxApp; s.engine = 'd'", "SandboxApp.engine", "not the str 'd'"),
        ("c.SandboxApp.data_dir = 5", "SandboxApp.data_dir", "not the int 5"),
        ("c.SandboxApp.administrators = {1}", "SandboxApp.administrators", "int"),
        ("c.SandboxApp.groups_hook = 'f'", "SandboxApp.groups_hook", "callable"),
        ("c.SandboxApp.extra_ca_bundle = '/no'", "SandboxApp.extra_ca_bundle", "cannot be read"),
        ("c.SandboxApp.db_url = 'postgres'", "SandboxApp.db_url", "no database URL"),
        ("c.SandboxApp.db_url = 'nosuch://h/d'", "SandboxApp.db_url", "no driver"),
        ("c.SandboxApp.db_url = 'sqlite:///a.db'", "SandboxApp.db_url", "absolute"),
        ("c.SandboxApp.db_url = 'sqlite:///file:a.db?uri=true'", "SandboxApp.db_url", "absolute"),
        ("c.SandboxApp.start_timeout_seconds = 0", "SandboxApp.start_timeout_seconds", "0"),
        ("c.SandboxApp.engine == 'docker'", "SandboxApp.engine", "write `= VALUE`"),
        ("c.SandboxApp.egnine = 'docker'", "SandboxApp.egnine", "did you mean SandboxApp.engine?"),
        ("c.SandboxApp.engine.append('docker')", "SandboxApp.engine", "write `= VALUE`"),
        ("c.SandboxEgress.presets = ['all']", "SandboxEgress.presets", "'all' is none of"),
        ("c.SandboxEgress.allow_hosts.append('*')", "SandboxEgress.allow_hosts", "*"),
        ("c.SandboxLimits.command_seconds = -1", "SandboxLimits.command_seconds", "more than 0"),
        ("c.SandboxLimits.command_seconds = float('nan')", "SandboxLimits.command_seconds", "nan"),
        ("c.SandboxLimits.command_seconds = float('inf')", "SandboxLimits.command_seconds", "inf"),
        ("c.SandboxLimits.view_byte = 5", "SandboxLimits.view_byte", "SandboxLimits.view_bytes?"),
        ("c.SandboxPreviews.html_scripts = 'no'", "SandboxPreviews.html_scripts", "str"),
        ("c.DockerEngine.request_timeout_seconds = 0", "DockerEngine.request_timeout_seconds", "0"),
        ("c.BubblewrapEngine.uid_base = 0", "BubblewrapEngine.uid_base", "0"),
        ("c.BubblewrapEngine.uid_base = 1000", "BubblewrapEngine.uid_base", "65536"),
        ("c.BubblewrapEngine.state_dir = 'x'", "BubblewrapEngine.state_dir", "absolute"),
        ("c.SandboxLimts.view_bytes = 5", "SandboxLimts", "did you mean SandboxLimits?"),
        ("c.Sandbox_Limits.view_bytes = 5", "Sandbox_Limits", "did you mean SandboxLimits?"),
        ("c.sandboxlimits.view_bytes = 5", "sandboxlimits", "did you mean SandboxLimits?"),
        ("c.SandobxApp.engine = 'docker'", "SandobxApp", "did you mean SandboxApp?"),
        ("c.SandboxNetwork.presets = []", "SandboxNetwork", "no such class"),
        ("c.owner_mode = 'username'", "owner_mode", "did you mean SandboxApp.owner_mode?"),
        ("c.DockerEngin.image = 'x'", "DockerEngin", "did you mean DockerEngine?"),
        ("c.BubblewrapEngin.uid_base = 1", "BubblewrapEngin", "did you mean BubblewrapEngine?"),
        ("c.ConfigurableEngine.image = 'x'", "ConfigurableEngine", "each class"),
        ("c.SandboxApp.SandboxEgress.presets = []", "SandboxApp.SandboxEgress", "in another"),
        ("c.ServerApp.SandboxEgress.presets = []", "ServerApp.SandboxEgress", "c.SandboxEgress"),
        ("c.ServerApp.SandboxEgres.presets = []", "ServerApp.SandboxEgres", "c.SandboxEgress"),
    ],
)
def test_a_wrong_setting_is_found_in_its_line(folder, line, setting, said):
    (folder / FILE).write_text(f"c = get_config()\n# {setting}\n{line}\n")
    (found,) = problems()
    assert found.startswith(f"{folder / FILE}:3: {setting}: "), found
    assert said in found


@attack("T41", on="")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--SandboxApp.engine=dokcer"], "SandboxApp.engine: "),
        (["--SandboxApp.engine=auto", "--SandboxApp.engine=docker"], "only accepts one value"),
        (["--SandboxLimits.view_bytes=5", "--SandboxLimits.view_bytes=6"], "only accepts one"),
        (["--SandboxApp.owner_mod=constant"], "did you mean SandboxApp.owner_mode?"),
        (["--SandboxLimts.view_bytes=5"], "did you mean SandboxLimits?"),
        (["--Sandboxapp.engine=docker"], "did you mean SandboxApp?"),
        (["--engine=docker"], "did you mean SandboxApp.engine?"),
        (["--sandbox_engine=docker"], "no such class"),
        (["--SandboxLimits.view_bytes=many"], "SandboxLimits.view_bytes: "),
        (["--SandboxLimits.command_seconds=nan"], "finite"),
        (["--BubblewrapEngine.uid_base=x"], "BubblewrapEngine.uid_base: "),
    ],
)
def test_a_wrong_setting_on_the_command_line_is_found(words, said):
    (found,) = problems(*words)
    assert found.startswith("the command line: "), found
    assert said in found


@attack("T41", on="")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (FILE, "c.SandboxEgress.presets = []\nc.SandboxApp.engine = 'docker\n", ":2: SyntaxError"),
        (FILE, "c.SandboxEgress.presets = []\n\nimport nosuchmodule\n", ":3: ModuleNotFoundError"),
        (FILE, "c.SandboxApp = 5\n", ":1: ValueError"),
        ("jupyter_config.py", "c.SandboxEgress.presets = [\n", ":1: SyntaxError"),
        ("jupyter_jupyter_sandbox_config.py", "1 / 0\n", ":1: ZeroDivisionError"),
        ("jupyter_server_config.json", '{"SandboxEgress":\n {"presets": []', ":2: JSONDecodeError"),
        (
            "jupyter_server_config.json",
            '{"SandboxLimits": {"view_bytes": 1},\n "SandboxApp": {\n  "engine": "d"}}',
            ":3: SandboxApp.engine: ",
        ),
        (
            "jupyter_server_config.d/a.json",
            '{"SandboxEgress": {"presets": []}}',
            "settings in this directory have no effect",
        ),
    ],
)
def test_a_file_of_which_nothing_counts_is_found(folder, name, text, said):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (found,) = problems()
    assert found.startswith(f"{folder / name}"), found
    assert said in found


@attack("T41", on="")
def test_a_file_that_cannot_be_read_is_found(folder, monkeypatch):
    (folder / FILE).symlink_to(folder / FILE)
    (found,) = problems()
    assert found.startswith(f"{folder / FILE}: cannot be read")
    (folder / FILE).unlink()
    (found,) = problems(f"--config={folder / 'typo.py'}")
    assert found == f"{folder / 'typo.py'}: there is no such file (--config)"


def test_what_is_right_or_somebody_elses_is_no_problem(folder):
    (folder / FILE).write_text(
        "c.SandboxApp.engine = 'docker'\n"
        "c.SandboxApp.administrators.add('dora')\n"
        "c.SandboxApp.log_level = 'ERROR'\n"
        "c.SandboxEgress.allow_hosts.append('a.example')\n"
        "c.SandboxEgress.allow_cidrs = ['10.0.0.0/8']\n"
        "c.SandboxLifecycle.group_times = {'staff': {'suspend_seconds': 60}}\n"
        "c.SandboxLimits.command_seconds = 5\n"
        "c.BubblewrapEngine.state_dir = '~/state'\n"
        "c.ServerApp.nonsense = 1\n"
        "c.NotebookApp.port = 1\n"
        "c.DockerSpawner.image = 'x'\n"
        "c.SandboxedKernels.any = 1\n"
        "c.KernelManager.autorestart = False\n"
    )
    (folder / "jupyter_config.json").write_text('{"SandboxPreviews": {"html_scripts": false}}')
    (folder / "jupyter_config.py").write_text("# nothing\n")
    (folder / "jupyter_server_config.d").mkdir()
    enabled = {"ServerApp": {"jpserver_extensions": {"jupyter_sandbox": True}}}
    (folder / "jupyter_server_config.d" / "a.json").write_text(json.dumps(enabled))
    assert problems("--SandboxEgress.presets=pypi", "--SandboxEgress.presets=npm") == []


def test_a_right_setting_on_the_command_line_takes_the_place_of_a_wrong_one(folder):
    (folder / FILE).write_text("c.SandboxApp.engine = 'dokcer'\n")
    assert problems("--SandboxApp.engine=docker") == []


@attack("T41", on="")
def test_what_another_extensions_file_says_of_us_counts():
    """``jupyter lab`` reads jupyter_lab_config.py after we were linked."""
    for presets, is_right in (([], True), (["all"], False)):
        extension = configured_extension()
        extension.serverapp.update_config(Config({"SandboxEgress": {"presets": presets}}))
        extension.initialize_settings()
        assert (extension._problems == []) is is_right
        assert not is_right or not extension._egress.is_on


# --- what comes of it


WRONG = {
    "a value": {"SandboxApp": {"engine": "dokcer"}},
    "another class's value": {"SandboxLifecycle": {"reap_seconds": 1}},
    "a name": {"SandboxApp": {"ownermode": "username"}},
    "a class": {"SandboxLimts": {"view_bytes": 5}},
    "an engine's value": {"BubblewrapEngine": {"uid_base": 0}},
}


class ServerThatServesNothing(RunningServer):
    """One that has no sandboxes to remove when it is closed."""

    async def _close(self) -> None:
        self.http_server.stop()
        await self.app._cleanup()


class TestAServer:
    @pytest.fixture
    def engine_name(self):
        return "auto"

    @pytest.fixture
    def jupyter_server(self, jp_server_config, jupyter_servers):
        jupyter_servers.close()
        server = ServerThatServesNothing(jp_server_config)
        yield server
        server.close()

    @pytest.fixture(params=WRONG.values(), ids=WRONG)
    def sandbox_config(self, request):
        return {
            "ServerApp": {"identity_provider_class": Users},
            **{name: dict(values) for name, values in request.param.items()},
            "SandboxApp": {"administrators": {"dora"}, **request.param.get("SandboxApp", {})},
        }

    @attack("T41", on="")
    async def test_it_serves_nothing_and_makes_nothing(self, server_dir, jp_fetch, caplog):
        api = Api(jp_fetch)
        asked = every_method()
        assert len({pattern for _, pattern in asked}) == len({pattern for pattern, _ in ROUTES})
        for method, pattern in asked:
            answer = await As(api, "alice").ask(method, url(pattern, "x"))
            assert answer.code == 503, (method, pattern)
            if method != "HEAD":
                told = json.loads(answer.body)
                assert told == {"ok": False, "code": "misconfigured", "message": CONTRACT}
        nobody = await As(api, "").ask("GET", "/sandbox/api/health")
        assert nobody.code == 401
        _, told = await As(api, "dora").json("GET", "/sandbox/api/health")
        assert told["message"] == CONTRACT
        (problem,) = told["problems"]
        assert [r.levelname for r in caplog.records if problem in r.getMessage()] == ["ERROR"]
        assert not (server_dir / "data").exists()
        assert [path.name[:6] for path in (server_dir / "run").iterdir()] == ["guest-"]


@pytest.fixture
def process(short_dir):
    """A server process with the settings of this file's folder, in a folder of notebooks."""
    server = ServerProcess(short_dir / "base", "dokcer")
    yield server
    server.stop()


def run(command: JupyterApp, words: list[str]) -> None:
    command.initialize(words)
    command.start()


@attack("T41", on="")
def test_a_real_server_and_every_command_refuse_the_same_and_make_nothing(
    process, short_dir, folder, tmp_path, capsys
):
    (folder / FILE).write_text(
        "c.SandboxApp.policy_file = '/etc/nowhere.json'\n\nc.SandboxLimts.x = 1\n"
    )
    process.start()
    with process.client() as client:
        refused = client._http.get("api/health")
    assert refused.status_code == 503
    told = refused.json()
    assert told["message"] == CONTRACT
    first, second = sorted(told["problems"])
    assert first.startswith(f"{folder / FILE}:3: SandboxLimts: ")
    assert second.startswith("the command line: SandboxApp.engine: ")
    assert re.search(rf"\[E .*{re.escape(first)}", process.log())
    assert {path.name for path in process.base.iterdir()} == {"root", "server.log"}

    for app, *words in (
        (DoctorApp, "--engine=docker"),
        (DoctorApp, "--json", "--SandboxApp.data_dir=."),
        (DisableApp,),
        (PolicyCheckApp,),
        (RotateKeyApp, f"--SandboxApp.db_url=sqlite:///{short_dir}/x.db"),
        (AuditVerifyApp,),
        (DemoApp,),
    ):
        with pytest.raises(SystemExit) as ended:
            run(app(), words)
        assert ended.value.code == 1, app
        said = capsys.readouterr()
        assert first in said.out + said.err, (app, said)
    assert os.listdir(tmp_path / "notebooks") == ["note.ipynb"]
    assert stat.S_IMODE((tmp_path / "notebooks").stat().st_mode) == 0o755
    assert {path.name for path in short_dir.iterdir()} == {"base"}
    assert not (tmp_path / "jupyter" / "jupyter_sandbox").exists()


@attack("T41", on="")
def test_the_doctor_as_a_command_says_what_is_wrong_on_its_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_sandbox.cli.app", "doctor", "--SandboxApp.engine=dokcer"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "the command line: SandboxApp.engine: " in done.stderr
    assert os.listdir(tmp_path / "notebooks") == ["note.ipynb"]
