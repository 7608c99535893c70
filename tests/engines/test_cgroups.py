"""Which control groups are used, in both versions, on a made-up file system."""

import errno
from pathlib import Path

import pytest

from jupyter_sandbox.engines import cgroups
from jupyter_sandbox.engines.base import Resources
from jupyter_sandbox.engines.cgroups import CONTROLLERS, SandboxGroups, find_cgroups

RESOURCES = Resources(memory_bytes=2**30, cpus=1.5, processes=100)


def proc_with(tmp_path: Path, mounts: list[tuple[str, Path, str]], own: str = "0::/") -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    lines = [f"30 20 0:26 / {m} rw - {kind} cgroup rw,{o}" for kind, m, o in mounts]
    (proc / "mountinfo").write_text("\n".join(["1 0 0:1 / / rw - ext4 /dev/sda rw", *lines]))
    (proc / "cgroup").write_text(own + "\n")
    return proc


def group(path: Path, *files: str, enabled: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in (*files, "cgroup.procs"):
        (path / name).write_text("")
    (path / "cgroup.subtree_control").write_text(enabled)
    return path


def version_1(tmp_path: Path) -> Path:
    """Give proc for a host with version 1; the controllers share two hierarchies."""
    for name in ("memory", "cpu,cpuacct", "pids", "freezer"):
        (tmp_path / name).mkdir()
    mounts = [
        ("cgroup", tmp_path / name, name) for name in ("memory", "cpu,cpuacct", "pids", "freezer")
    ]
    return proc_with(tmp_path, mounts)


def test_version_1_offers_all_controllers(tmp_path: Path):
    found = find_cgroups(proc=version_1(tmp_path), root=True)
    assert found.missing == ()
    assert found.parents["cpu"].path == tmp_path / "cpu,cpuacct" / "jupyter-sandbox"


def test_a_host_without_control_groups_offers_none(tmp_path: Path):
    found = find_cgroups(proc=proc_with(tmp_path, []), root=True)
    assert found.missing == CONTROLLERS
    groups = found.create("0123456789ab", RESOURCES)
    groups.add(1)
    groups.thaw()
    groups.remove(0)
    assert not groups.can_freeze
    assert not groups.is_frozen()
    assert groups.out_of_memory_kills() == 0


def test_version_1_limits_are_written_where_the_kernel_has_files_for_them(tmp_path: Path):
    found = find_cgroups(proc=version_1(tmp_path), root=True)
    made = found.groups_of("0123456789ab")
    files = {
        "memory": ("memory.limit_in_bytes",),  # no memsw: swap is not accounted
        "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
        "pids": ("pids.max",),
        "freezer": (),
    }
    for name, names in files.items():
        group(made.groups[name].path, *names)
    found.create("0123456789ab", RESOURCES)
    assert (made.groups["memory"].path / "memory.limit_in_bytes").read_text() == str(2**30)
    assert not (made.groups["memory"].path / "memory.memsw.limit_in_bytes").exists()
    assert (made.groups["cpu"].path / "cpu.cfs_quota_us").read_text() == "150000"
    assert (made.groups["pids"].path / "pids.max").read_text() == "100"
    made.add(77)
    assert {(g.path / "cgroup.procs").read_text() for g in made.groups.values()} == {"77"}


def test_a_limit_that_cannot_be_written_is_an_error(tmp_path: Path):
    found = find_cgroups(proc=version_1(tmp_path), root=True)
    with pytest.raises(FileNotFoundError):  # as if the kernel had no such file
        found.create("0123456789ab", RESOURCES)


def test_version_2_offers_only_what_could_be_enabled_for_our_group(tmp_path: Path, monkeypatch):
    # As in a container, whose own group has processes: the kernel enables nothing more.
    monkeypatch.setattr(cgroups, "_enable", lambda directory, name: None)
    base = group(tmp_path / "cgroup", enabled="memory pids")
    group(base / "jupyter-sandbox", "cgroup.freeze", enabled="memory pids")
    proc = proc_with(tmp_path, [("cgroup2", base, "nsdelegate")])
    found = find_cgroups(proc=proc, root=True)
    assert "memory" in found.parents
    assert "freezer" in found.parents
    assert found.missing == ("cpu",)


def test_version_2_limits_forbid_swap(tmp_path: Path):
    base = group(tmp_path / "cgroup", enabled="memory pids cpu")
    group(base / "jupyter-sandbox", "cgroup.freeze", enabled="memory pids cpu")
    found = find_cgroups(proc=proc_with(tmp_path, [("cgroup2", base, "")]), root=True)
    path = base / "jupyter-sandbox" / "0123456789ab"
    group(path, "memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.freeze")
    made = found.create("0123456789ab", RESOURCES)
    written = {name: (path / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")}
    assert written == {"memory.max": str(2**30), "cpu.max": "150000 100000", "pids.max": "100"}
    assert (path / "memory.swap.max").read_text() == "0"
    (path / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    (path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert made.out_of_memory_kills() == 3
    assert made.freeze(1)
    assert (path / "cgroup.freeze").read_text() == "1"
    (path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert not made.is_frozen()


def test_an_ordinary_user_uses_the_highest_group_that_is_delegated(tmp_path: Path):
    base = tmp_path / "cgroup"
    manager = group(base / "user.slice" / "user@7.service", enabled="memory pids cpu")
    group(manager / "app.slice" / "jupyter.scope")
    group(manager / "jupyter-sandbox", enabled="memory pids cpu")
    (base / "user.slice").chmod(0o555)
    own = "0::/user.slice/user@7.service/app.slice/jupyter.scope"
    proc = proc_with(tmp_path, [("cgroup2", base, "")], own)
    found = find_cgroups(proc=proc, root=False)
    # Root may write everywhere; whoever runs this as a user finds the manager's group.
    assert found.parents["memory"].path.name == "jupyter-sandbox"
    assert found.parents["memory"].path.parent in (manager, base / "user.slice", base)


def test_groups_are_remembered_by_a_record(tmp_path: Path):
    groups = find_cgroups(proc=version_1(tmp_path), root=True).groups_of("0123456789ab")
    assert SandboxGroups.from_json(groups.to_json()) == groups


def test_a_group_with_processes_is_not_given_up_silently(tmp_path: Path, monkeypatch):
    groups = find_cgroups(proc=version_1(tmp_path), root=True).groups_of("0123456789ab")
    for each in groups.groups.values():
        each.path.mkdir()

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Path, "rmdir", busy)
    with pytest.raises(OSError, match="busy"):
        groups.remove(0.01)
    monkeypatch.undo()
    groups.remove(0.01)
    groups.remove(0.01)  # twice is once
    assert not any(each.path.exists() for each in groups.groups.values())
