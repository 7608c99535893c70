"""What an administrator's Prometheus reads on ``/metrics`` after work was done."""

from __future__ import annotations

import json

import pytest

from tests.test_metrics import value


@pytest.fixture
def engine_name():
    return "bubblewrap"  # what is counted is above the engines


async def test_work_shows_on_the_metrics_page_and_names_nobody(api, jp_fetch, jp_serverapp):
    names = {
        "calls": ("jupyter_sandbox_calls_total", {"tool": "bash", "code": "ok"}),
        "seconds": ("jupyter_sandbox_call_duration_seconds_count", {"tool": "bash"}),
        "made": ("jupyter_sandbox_provision_duration_seconds_count", {"outcome": "made"}),
        "up": ("jupyter_sandbox_uploaded_bytes_total", {}),
        "shared": ("jupyter_sandbox_shared_bytes_total", {}),
        "down": ("jupyter_sandbox_downloaded_bytes_total", {}),
        "refused": ("jupyter_sandbox_refused_requests_total", {"reason": "not_found"}),
        "unknown": ("jupyter_sandbox_calls_total", {"tool": "other", "code": "unknown_tool"}),
    }
    before = {key: value(name, **labels) for key, (name, labels) in names.items()}
    conversation = await api.conversation(title="a title of mine")
    await api.raw("PUT", "conversations", conversation, "uploads", "my-name.txt", body=b"12345")
    await api.bash(conversation, "printf 123 > /mnt/user-data/outputs/out-name.txt")
    shared = await api.call(
        conversation, "share_files", paths=["/mnt/user-data/outputs/out-name.txt"]
    )
    assert not shared["is_error"]
    api.base = ("sandbox", "files")
    assert (await api.raw("GET", conversation, "out-name.txt")).body == b"123"
    api.base = ("sandbox", "api")
    assert (await api.raw("GET", "conversations", "missing")).code == 404
    await api.call(conversation, "no_such_tool_of_mine")
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    await services.state_counts.look()

    after = {key: value(name, **labels) for key, (name, labels) in names.items()}
    grown = {key: after[key] - before[key] for key in names}
    assert grown == {
        **{"calls": 1, "seconds": 1, "made": 1, "refused": 1, "unknown": 1},
        **{"up": 5, "shared": 3, "down": 3},
    }
    page = (await jp_fetch("metrics")).body.decode()
    ours = "\n".join(line for line in page.split("\n") if line.startswith("jupyter_sandbox_"))
    assert 'jupyter_sandbox_sandboxes{state="running"} 1.0' in ours
    assert "jupyter_sandbox_calls_running 0.0" in ours
    record = await services.database.conversation(conversation)
    for private in (conversation, record.sandbox_id, record.owner, "name.txt", "of_mine", "title"):
        assert private not in ours, json.dumps(private)
