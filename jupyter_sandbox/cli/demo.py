"""``jupyter sandbox demo``: a server of its own, the scripted assistant at work, its files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from traitlets import Enum, Unicode

from ..demo.assistant import Assistant, DemoFailed
from .server_settings import configured_extension
from .strict_app import StrictApp
from .temporary_server import ServerFailed, temporary_server


class DemoApp(StrictApp):
    """Show a whole job of an assistant, from a CSV to a shared chart and workbook."""

    name = "jupyter-sandbox-demo"
    description = __doc__ or ""

    engine = Enum(
        ("auto", "docker", "bubblewrap"), default_value="auto", help="What makes the sandbox."
    ).tag(config=True)
    output = Unicode("demo-output", help="Directory that the shared files are put into.").tag(
        config=True
    )

    aliases = {"engine": "DemoApp.engine", "output": "DemoApp.output"}  # noqa: RUF012

    def start(self) -> None:
        """Run the demo; exit with 1 and the reason if a step fails."""
        problems = configured_extension().find_problems()
        if problems:
            print("the server is not configured correctly:", *problems, sep="\n", file=sys.stderr)
            self.exit(1)
        base = Path(tempfile.mkdtemp(prefix="jsb-demo", dir="/tmp"))
        try:
            with temporary_server(base, self.engine) as server:
                conversation, cards = Assistant(server, print).work()
                target = Path(self.output).resolve()
                target.mkdir(parents=True, exist_ok=True)
                for card in cards:
                    relative = card["path"].removeprefix("/mnt/user-data/outputs/")
                    server.download(f"{conversation}/{relative}", target / card["name"])
                    print(f"shared: {target / card['name']} ({card['size_bytes']:,} bytes)")
                server.request("DELETE", f"conversations/{conversation}")
        except (DemoFailed, ServerFailed) as exc:
            print(f"the demo failed: {exc}", file=sys.stderr)
            log = base / "server.log"
            if log.exists():
                print(log.read_text()[-4000:], file=sys.stderr)
            self.exit(1)
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(base)], check=False)
