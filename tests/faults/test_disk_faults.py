"""A disk of the host is full: of the data directory, or of the runtime directory.

Each is a small file system of its own that is filled by the test.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import text_of
from tests.jupyter_servers import in_directories

from .table import fault

_SIZE = "24m"


pytestmark = pytest.mark.own_server


@pytest.fixture
def sandbox_config(short_dir):
    return {"SandboxApp": in_directories(short_dir)}


@pytest.fixture
def small_disk(short_dir, request):
    """Mount a small file system; fill and empty it."""
    place = short_dir / request.param
    place.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "tmpfs", str(place)], check=True
    )
    yield SmallDisk(place)
    subprocess.run(["umount", "-l", str(place)], check=True)


class SmallDisk:
    def __init__(self, place) -> None:
        self._filler = place / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (2**20, 4096):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def empty(self) -> None:
        self._filler.unlink()


async def shared(api, conversation: str, name: str) -> dict:
    result = await api.call(conversation, "share_files", paths=[f"/mnt/user-data/outputs/{name}"])
    return result


@fault("disk-full-data")
@pytest.mark.parametrize("small_disk", ["data"], indirect=True)
@pytest.mark.parametrize(
    "engine_name", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True
)
async def test_a_full_data_directory_refuses_what_must_be_kept_and_nothing_else(small_disk, api):
    conversation = await api.conversation(title="before")
    await api.raw("PUT", "conversations", conversation, "uploads", "kept.txt", body=b"kept")
    await api.bash(conversation, "head -c 3000000 /dev/urandom > /mnt/user-data/outputs/big")
    small_disk.fill()

    response = await api.raw(
        "PUT", "conversations", conversation, "uploads", "big.bin", body=b"x" * 3_000_000
    )
    assert response.code in (502, 503), response.body
    assert response.headers["Retry-After"]
    result = await shared(api, conversation, "big")
    assert result["is_error"] or "code" in str(result["content"]), result
    assert "big" in await api.bash(conversation, "ls /mnt/user-data/outputs")
    status, health = await api.json("GET", "health")
    assert status == 503
    assert "full" in health["message"]
    response = await api.raw("GET", "conversations", conversation, "uploads", "kept.txt")
    assert response.body == b"kept"

    small_disk.empty()
    result = await shared(api, conversation, "big")
    assert not result["is_error"], text_of(result)
    response = await api.raw(
        "PUT", "conversations", conversation, "uploads", "big.bin", body=b"x" * 3_000_000
    )
    assert response.code in (200, 201), response.body
    other = await api.conversation(title="after")
    assert "hello\n[exit code 0" in await api.bash(other, "echo hello")
    assert (await api.json("GET", "health"))[0] == 200


@fault("disk-full-runtime")
@pytest.mark.parametrize("small_disk", ["run"], indirect=True)
async def test_a_full_runtime_directory_refuses_new_sandboxes_only(small_disk, api):
    conversation, other = await api.conversation(), await api.conversation()
    await api.bash(conversation, "echo kept > file")
    small_disk.fill()
    result = await api.call(other, "bash", command="echo hello")
    if result["is_error"]:  # sockets and directories may still find room in a tmpfs
        assert text_of(result).startswith("exec failed: "), text_of(result)
    assert "kept\n[exit code 0" in await api.bash(conversation, "cat file")
    small_disk.empty()
    assert "hello\n[exit code 0" in await api.bash(other, "echo hello")
