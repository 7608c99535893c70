"""What root inside a sandbox tries on uploads and on the way of shared files: all refused."""

from __future__ import annotations

import asyncio
import os
import subprocess

from tests.attacks import attack
from tests.conftest import on_gvisor_too, text_of

U = "/mnt/user-data/uploads"
OUT = "/mnt/user-data/outputs"

# Each command must fail, and leave the file as it is.
ATTACKS = [
    f"echo x > {U}/a",
    f"echo x >> {U}/a",
    f"echo x > {U}/new",
    f"truncate -s 0 {U}/a",
    f"chmod 777 {U}/a",
    f"chmod 777 {U}",
    f"chown 1:1 {U}/a",
    f"touch {U}/a",
    f"rm -f {U}/a",
    f"mv {U}/a {U}/b",
    f"mv {U}/a /tmp/stolen",
    f"ln {U}/a {U}/b",
    f"ln {U}/a /tmp/hard",
    f"ln -s /etc/passwd {U}/link",
    f"mkdir {U}/d",
    f"mkfifo {U}/p",
    f"mknod {U}/n c 1 3",
    f"cp /bin/sh {U}/a",
    f"mv -T /tmp {U}",
    f"rmdir {U}",
    f"rm -rf {U}",
    f"mount -o remount,rw {U}",
    f"mount -o bind,remount,rw {U}",
    f"mount -t tmpfs none {U}",
    f"mount --bind /tmp {U}",
    f"umount {U}",
    f"umount -l {U}",
    f"unshare -m sh -c 'mount -o remount,rw {U} && echo x > {U}/a'",
    f"unshare -Urm --propagation unchanged sh -c 'mount -o remount,rw {U}; echo x > {U}/a'",
    f"setfattr -n user.x -v y {U}/a",
    f"python3 -c \"import os; os.open('{U}/a', os.O_RDWR)\"",
    f"python3 -c \"import os; os.open('{U}', os.O_TMPFILE | os.O_RDWR)\"",
    f"python3 -c \"import os; os.utime('{U}/a', (1, 1))\"",
    f"python3 -c \"import os; f = os.open('{U}/a', 0); os.open(f'/proc/self/fd/{{f}}', os.O_RDWR)\"",
]


async def upload(api, conversation: str, name: str, data: bytes) -> None:
    response = await api.raw("PUT", "conversations", conversation, "uploads", name, body=data)
    assert response.code in (200, 201), response.body


@attack("T27")
async def test_root_inside_cannot_change_an_upload_in_any_way(api, jp_serverapp):
    conversation = await api.conversation()
    await upload(api, conversation, "a", b"the contents\n")
    before = await api.bash(conversation, f"stat -c '%a %s %y %n' {U}/a {U}; id -u")
    script = "".join(
        f"( {attack} ) >/dev/null 2>&1 && echo 'DONE: '{n}\n" for n, attack in enumerate(ATTACKS)
    )
    shown = await api.bash(conversation, f"cd /tmp\n{script}\necho over; cat {U}/a; cd {U}; ls")
    assert "DONE" not in shown, [ATTACKS[int(w)] for w in shown.split("DONE: ")[1:] if w.isdigit()]
    assert "over\nthe contents\na\n" in shown
    after = await api.bash(conversation, f"stat -c '%a %s %y %n' {U}/a {U}; id -u")
    assert before.split("\n[exit")[0].endswith(after.split("\n[exit")[0])
    # The host's copy is what it was, and still takes new versions.
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    services = await app.ready()
    record = await services.database.conversation(conversation)
    plaintext = services.conversations._around.sandboxes.settings.plaintext
    directory = plaintext.uploads(record.sandbox_id)
    assert os.listdir(directory) == ["a"]
    assert (directory / "a").read_bytes() == b"the contents\n"
    assert os.listdir(directory.parent / "incoming") == []
    await upload(api, conversation, "a", b"another\n")
    assert "another" in await api.bash(conversation, f"cat {U}/a")


@attack("T26")
async def test_a_sandbox_sees_no_upload_on_its_way_and_none_of_another_conversation(api):
    one, two = await api.conversation(), await api.conversation()
    await upload(api, one, "secret-of-one", b"secret-of-one\n")
    await upload(api, two, "of-two", b"x")
    await api.bash(one, "true")
    seen = await api.bash(
        two,
        # cd: under gVisor (of 2022) `ls DIRECTORY` says "Invalid argument".
        f"for d in {U} {U}/.. /dev/shm /run; do cd $d; ls -a; done; cat /proc/mounts | grep user-data; "
        "find / -path /usr -prune -o '(' -name 'secret-of*' -o -name incoming ')' -print 2>/dev/null",
    )
    assert "secret-of-one" not in seen
    assert "of-two" in seen
    assert "incoming" not in seen


@on_gvisor_too
@attack("T21")
async def test_links_and_what_is_no_file_are_never_followed_out_of_outputs(api):
    conversation = await api.conversation()
    await upload(api, conversation, "u", b"an upload\n")
    await api.bash(
        conversation,
        f"cd {OUT}; ln -s /etc/passwd abs; ln -s ../uploads/u rel; ln -s /nowhere dangling; "
        "ln -s loop loop; ln -s /proc/self/environ env; mkfifo fifo; mkdir d; ln -s d dirlink; "
        "echo ok > d/ok; ln -s / root; echo fine > fine; "
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"",
    )
    names = ["abs", "rel", "dangling", "loop", "env", "fifo", "d", "dirlink/ok", "root/etc/passwd"]
    names += ["sock", "missing", "fine"]
    result = await asyncio.wait_for(
        api.call(conversation, "share_files", paths=[f"{OUT}/{name}" for name in names]), 30
    )
    cards = {p["path"][len(OUT) + 1 :]: p for p in result["content"] if p["type"] == "file"}
    assert {name for name, card in cards.items() if "id" in card} == {"fine"}
    for name in ("abs", "rel", "env", "dirlink/ok", "root/etc/passwd"):
        assert cards[name]["code"] == "link", cards[name]
    assert "root:" not in text_of(result)


@on_gvisor_too
@attack("T22")
async def test_a_path_that_is_swapped_while_it_is_shared_gives_no_byte_of_another_file(
    api, jp_serverapp
):
    conversation = await api.conversation()
    await api.bash(
        conversation,
        f"cd {OUT}; echo inside > good; cp good f; "
        "(while :; do ln -sfn /etc/passwd t && mv -T t f; cp good t && mv -T t f; "
        "rm -f f; mkfifo f; rm -f f; done) >/dev/null 2>&1 &",
    )
    for _ in range(60):
        await asyncio.wait_for(api.call(conversation, "share_files", paths=[f"{OUT}/f"]), 30)
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    for share in await services.database.shares(conversation):
        async with services.files.reading(share.stored) as reader:
            data = b"".join([piece async for piece in reader.pieces()])
        assert data in (b"inside\n", b"")


@attack("T16")
async def test_sparse_and_growing_files_are_bounded(api, jp_serverapp):
    conversation = await api.conversation()
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    await api.bash(
        conversation,
        f"cd {OUT}; truncate -s 20G sparse 2>/dev/null || truncate -s 4500M sparse; "
        "truncate -s 20M small; (while :; do head -c 1M /dev/zero >> grows; done) & sleep 0.2",
    )
    object.__setattr__(services.limits, "share_bytes", 64 * 1024 * 1024)
    try:
        result = await asyncio.wait_for(
            api.call(
                conversation,
                "share_files",
                paths=[f"{OUT}/{n}" for n in ("sparse", "small", "grows")],
            ),
            60,
        )
    finally:
        object.__setattr__(services.limits, "share_bytes", 4 * 1024**3)
    cards = {p["name"]: p for p in result["content"] if p["type"] == "file"}
    assert cards["sparse"]["code"] == "too_large"
    assert cards["small"]["size_bytes"] == 20 * 1024 * 1024
    assert cards["grows"].get("code") in ("too_large", "changed")
    assert (await services.database.usage(conversation)).share_bytes == 20 * 1024 * 1024


@attack("T28")
async def test_no_plaintext_is_anywhere_on_the_disk(api, jp_serverapp, server_dir):
    marker = "a-marker-" + "of-an-upload-and-a-share"
    conversation = await api.conversation()
    await upload(api, conversation, "m", marker.encode() * 5000)
    await api.bash(conversation, f"cp {U}/m {OUT}/m")
    await api.call(conversation, "share_files", paths=[f"{OUT}/m"])
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    key = await services.files._keys.get(conversation)
    await services.conversations.live(conversation).delete()
    for word in (marker, key.hex()):
        found = subprocess.run(
            ["grep", "-rlF", word, str(server_dir), "/dev/shm"], capture_output=True, text=True
        )
        assert found.stdout == ""
    assert not any(key in path.read_bytes() for path in server_dir.rglob("*") if path.is_file())
