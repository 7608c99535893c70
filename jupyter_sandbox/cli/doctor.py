"""``jupyter sandbox doctor``: does a sandbox work here, what holds it, and what to do if not.

It starts a server of its own with the user's configuration and asks it for its deep health report;
what it prints is that report. Settings of the server on the command line hold as they would there;
what is wrong with them, with the policy file or with the directories is said first, and nothing is
started or made. With ``--probe`` it also attacks a sandbox of its own from inside.
Exit code 1 when a step failed, no engine works or an attack was not contained; a limit that does
not hold is a warning.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from traitlets import Bool, Enum

from ..demo.assistant import Server
from ..policy.tiers import Tier
from .probe import Attempt, ProbeFailed, probe, to_rows
from .server_settings import ServerSettingsApp, configured_extension
from .temporary_server import ServerFailed, temporary_server
from .visible_processes import WARNING, are_command_lines_shown

_REPORT_SECONDS = 600.0
_SIGNS = {"enforced": "ok", "weaker": "weak", "not_enforced": "NO"}
# Places of the server that is asked about; the one that is started has its own.
_OF_THE_SERVER = tuple(
    f"--SandboxApp.{name}=" for name in ("data_dir", "runtime_dir", "db_url", "master_key_file")
)
_STEPS = {
    "start": "start a conversation",
    "echo": "run echo hello",
    "create_file": "create a file",
    "share_files": "share it",
    "download": "download it",
}


class DoctorApp(ServerSettingsApp):
    """Check that sandboxes work here, and say what holds them and what does not."""

    name = "jupyter-sandbox-doctor"
    description = __doc__ or ""

    engine = Enum(
        ("", "auto", "docker", "bubblewrap"),
        default_value="",
        help="What makes the sandbox; empty: what the configuration says.",
    ).tag(config=True)
    as_json = Bool(False, help="Print the report as JSON.").tag(config=True)
    attack = Bool(
        False, help="Also attack a fresh sandbox from inside; harmless, nothing leaves it."
    ).tag(config=True)

    aliases = {"engine": "DoctorApp.engine"}  # noqa: RUF012
    flags = {  # noqa: RUF012
        "json": ({"DoctorApp": {"as_json": True}}, "Print the report as JSON."),
        "probe": (
            {"DoctorApp": {"attack": True}},
            "Also attack a fresh sandbox from inside; harmless, nothing leaves it.",
        ),
    }

    def start(self) -> None:
        """Print the report; exit with 1 if sandboxes do not work here."""
        self._require_settings()
        attempts: list[Attempt] = []
        base = Path(tempfile.mkdtemp(prefix="jsb-doctor", dir="/tmp"))
        try:
            own = [word for word in self.settings_given if not word.startswith(_OF_THE_SERVER)]
            with temporary_server(base, self.engine, own) as server:
                report = _ask(server)
                _add_what_the_host_shows(report)
                if self.attack:
                    attempts = probe(
                        server,
                        has_own_kernel=_has_own_kernel(report),
                        has_couriers=(report.get("sockets") or {}).get("read_by") == "couriers",
                    )
        except (ServerFailed, ProbeFailed) as exc:
            print(f"{exc}; the end of its log:", file=sys.stderr)
            print((base / "server.log").read_text()[-4000:], file=sys.stderr)
            self.exit(1)
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(base)], check=False)
        if self.as_json:
            shapes = [dataclasses.asdict(each) for each in attempts]
            print(json.dumps({**report, "attacks": shapes} if self.attack else report, indent=2))
        else:
            lines = [*to_lines(report), *(to_rows(attempts) if self.attack else ())]
            print("\n".join(lines))
        contained = all(each.contained for each in attempts)
        self.exit(0 if report.get("ok") and contained else 1)

    def _require_settings(self) -> None:
        """Exit with 1 and what is wrong if the server would not work with its settings."""
        engine = [f"--SandboxApp.engine={self.engine}"] if self.engine else []
        problems = configured_extension([*engine, *self.settings_given]).find_problems()
        if problems and self.as_json:
            shape = {"ok": False, "code": "misconfigured", "problems": problems}
            print(json.dumps(shape, indent=2))
        if problems:
            self.refuse(problems)


def to_lines(report: dict[str, Any]) -> Iterator[str]:
    """Give a health report as lines for people."""
    engine = report.get("engine")
    if engine is None:  # an error of the server in place of a report
        yield f"no report: {report.get('message', report)}"
        yield from report.get("problems", ())
        return
    yield f"engine    {engine['name']}: {engine['reason']}"
    for warning in engine["warnings"]:
        yield f"warning   {warning}"
    yield ""
    for step in report.get("steps", ()):
        sign = "ok" if step["ok"] else "FAILED"
        yield f"{sign:<9} {_STEPS[step['step']]:<22} {step['duration_seconds']:8.3f} s"
        if not step["ok"]:
            yield f"          {step['message']}"
            yield f"          what to do: {step['advice']}"
    yield ""
    for limit in report["limits"]:
        seen = "" if limit["read_back"] else " (not read back)"
        yield (
            f"{_SIGNS[limit['strength']]:<9} {limit['limit']:<14} {limit['value']:<18} "
            f"{limit['mechanism']}{seen}"
        )
        if limit["advice"]:
            yield f"{'':<24} what to do: {limit['advice']}"
    yield f"\nsockets   {report['sockets']['text']}"
    if report["tier"]:
        yield f"tier      {report['tier']['text']}"


def _add_what_the_host_shows(report: dict[str, Any]) -> None:
    if report.get("engine") and not _has_own_kernel(report) and are_command_lines_shown():
        report["engine"]["warnings"].append(WARNING)


def _has_own_kernel(report: dict[str, Any]) -> bool:
    """Say whether another kernel than the host's answers inside, as read back from outside."""
    return (report.get("tier") or {}).get("name") == Tier.OWN_KERNEL


def _ask(server: Server) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server.url}/sandbox/api/health",
        method="POST",
        headers={"Authorization": f"token {server.token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_REPORT_SECONDS) as response:
            report: dict[str, Any] = json.loads(response.read())
    except urllib.error.HTTPError as exc:  # a report that all is not well is an answer too
        report = json.loads(exc.read())
    except OSError as exc:
        raise ServerFailed(f"the server did not answer ({exc})") from exc
    return report


main = DoctorApp.launch_instance

if __name__ == "__main__":
    main()
