"""What the health route and the doctor say of each limit on each tier: never a limit that is silently
not enforced."""

from __future__ import annotations

import os

from jupyter_sandbox.engines.cgroups import find_cgroups
from tests.attacks import attack

# Per tier: limit -> strength. What is not named is "enforced" on all.
SAID = {
    "docker": {"kernel": "weaker", "user": "weaker", "disk": "weaker"},
    "gvisor": {"memory": "weaker", "processes": "weaker", "disk": "weaker"},
    "bubblewrap": {"kernel": "weaker"},
    "ordinary user": {
        "kernel": "weaker",
        "disk": "weaker",
        "memory": "weaker",
        "processors": "not_enforced",
    },
}


@attack("T14", "T15", "T16")
async def test_what_holds_each_limit_is_said_as_it_is(api, engine_name):
    tier = engine_name
    if tier == "bubblewrap" and find_cgroups().missing:
        tier = "ordinary user"
    await api.bash(await api.conversation(), "true")
    _, report = await api.json("GET", "health")
    rows = {each["limit"]: each for each in report["limits"]}
    found = {name: row["strength"] for name, row in rows.items() if row["strength"] != "enforced"}
    expected = dict(SAID[tier])
    if rows["disk"]["strength"] == "enforced":  # a quota of the host's own file system
        expected.pop("disk", None)
    if rows["user"]["strength"] == "enforced":  # a daemon with user name spaces
        expected.pop("user", None)
    assert found == expected, rows
    assert all(rows[name]["advice"] or rows[name]["mechanism"] for name in found)
    if tier == "ordinary user":
        assert os.geteuid() != 0
        assert rows["processors"]["advice"]
