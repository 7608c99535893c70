"""A scripted assistant: what a model would do with a CSV, step by step, each result checked.

It knows the REST API and nothing else of this package. A step whose result is not what a user would
expect ends the demo with ``DemoFailed``.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("seattle-weather.csv")

_SCRIPT = """\
import pandas as pd
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt

data = pd.read_csv("/workspace/data/seattle-weather.csv", parse_dates=["date"])
data["month"] = data["date"].dt.to_period("M")
monthly = data.groupby("month").agg(
    rain_mm=("rain", "sum"), warmest=("temp_max", "max"), coldest=("temp_min", "min")
)
wettest = monthly["rain_mm"].idxmax()
print(f"{len(data)} days, {len(monthly)} months")
print(f"wettest month: {wettest} with {monthly.loc[wettest, 'rain_mm']:.1f} mm")

figure, axis = plt.subplots(figsize=(10, 4))
axis.bar(range(len(monthly)), monthly["rain_mm"], color="tab:blue")
axis.set_xticks(range(0, len(monthly), 6), [str(m) for m in monthly.index[::6]])
axis.set_ylabel("precipitation (mm)")
axis.set_title("Seattle, precipitation by month")
figure.tight_layout()
figure.savefig("/mnt/user-data/outputs/rain.png", dpi=100)

monthly.index = monthly.index.astype(str)
monthly.to_excel("/mnt/user-data/outputs/seattle-monthly.xlsx", sheet_name="monthly")
"""


class DemoFailed(Exception):
    """A step gave something else than expected."""


@dataclass(frozen=True)
class Server:
    """Where the Jupyter Server is, and the token for it."""

    url: str
    token: str

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send a request; give its JSON."""
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/sandbox/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"token {self.token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=700) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as exc:
            text = exc.read().decode("utf-8", "replace")
            raise DemoFailed(f"{method} {path}: {exc.code} {text}") from None

    def download(self, path: str, target: Path) -> None:
        """Write a shared file, named by its conversation and path, to ``target``."""
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/sandbox/files/{urllib.parse.quote(path)}",
            headers={"Authorization": f"token {self.token}"},
        )
        try:
            with (
                urllib.request.urlopen(request, timeout=700) as response,
                target.open("wb") as file,
            ):
                shutil.copyfileobj(response, file)
        except urllib.error.HTTPError as exc:
            text = exc.read().decode("utf-8", "replace")
            raise DemoFailed(f"download of {path}: {exc.code} {text}") from None


class Assistant:
    """Works through the job in one conversation.

    Parameters
    ----------
    say : callable
        Takes each line of the report.
    """

    def __init__(self, server: Server, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say
        self._conversation = ""

    def work(self) -> tuple[str, list[dict[str, Any]]]:
        """Do the whole job; give the conversation's id and the cards of the shared files."""
        model = self._server.request("POST", "conversations", {"title": "Seattle's weather"})
        self._conversation = model["id"]
        self._say(f"conversation {self._conversation}\n")
        self._call("create_file", path="/workspace/data/seattle-weather.csv", file_text=_data())
        text = self._call("bash", command="cd data && head -n 4 *.csv && wc -l *.csv")
        self._expect("2012/01/01,0.0,12.8,5.0,4.7,drizzle" in text, "the first rows of the data")
        self._expect("1462" in text, "the number of rows")
        text = self._call("bash", command="pwd")
        self._expect("/workspace/data" in text, "the working directory to carry over")
        self._call("create_file", path="/workspace/analyse.py", file_text=_SCRIPT)
        text = self._call("bash", command="cd /workspace && python analyse.py", fails=True)
        self._expect("['rain']" in text, "the script to stop at a column that is not there")
        self._call(
            "str_replace",
            path="/workspace/analyse.py",
            old_str='rain_mm=("rain", "sum")',
            new_str='rain_mm=("precipitation", "sum")',
        )
        text = self._call("bash", command="python analyse.py")
        self._expect("1461 days, 48 months" in text, "the days and months of the data")
        self._expect("wettest month: 2015-12 with 284.5 mm" in text, "the wettest month")
        picture = self._result("view", path="/mnt/user-data/outputs/rain.png")
        self._expect(
            any(part["type"] == "image" for part in picture["content"]), "the chart as an image"
        )
        text = self._call(
            "python",
            code="import openpyxl\n"
            "sheet = openpyxl.load_workbook('/mnt/user-data/outputs/seattle-monthly.xlsx').active\n"
            "sheet.max_row, [cell.value for cell in sheet[1]]",
        )
        self._expect("(49, ['month', 'rain_mm', 'warmest', 'coldest'])" in text, "the workbook")
        shared = self._result(
            "share_files",
            paths=[
                "/mnt/user-data/outputs/rain.png",
                "/mnt/user-data/outputs/seattle-monthly.xlsx",
            ],
        )
        cards = [part for part in shared["content"] if part["type"] == "file"]
        self._expect(len(cards) == 2 and all("id" in c for c in cards), "two shared files")
        return self._conversation, cards

    def _call(self, tool: str, *, fails: bool = False, **arguments: Any) -> str:
        """Call a tool, report it, check that it did (or did not) succeed; give its text."""
        result = self._result(tool, **arguments)
        failed = result["is_error"] or result.get("exit_code", 0) != 0
        self._expect(failed == fails, f"{tool} to {'fail' if fails else 'succeed'}")
        return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")

    def _result(self, tool: str, **arguments: Any) -> dict[str, Any]:
        shown = {k: v if len(str(v)) < 90 else f"{str(v)[:60]}…" for k, v in arguments.items()}
        self._say(f"▶ {tool} {json.dumps(shown, ensure_ascii=False)}")
        result: dict[str, Any] = self._server.request(
            "POST", f"conversations/{self._conversation}/tools/{tool}", arguments
        )
        for part in result["content"]:
            if part["type"] == "text":
                for line in part["text"].splitlines()[-14:]:
                    self._say(f"  {line[:160]}")
            else:
                detail = {k: v for k, v in part.items() if k not in ("type", "data")}
                self._say(f"  <{part['type']} {json.dumps(detail)}>")
        self._say(f"  ({result['duration_seconds'] * 1000:.0f} ms)\n")
        return result

    def _expect(self, held: bool, what: str) -> None:
        if not held:
            raise DemoFailed(f"expected {what}")


def _data() -> str:
    return DATA.read_text()
