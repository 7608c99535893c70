"""One user who attacks everything that is shared, as a program.

``python -m benchmarks.hostile URL TOKEN CONVERSATION [KIND …]``: it asks without a pause for what
is dear to the server (notebooks and previews whose Markdown is quadratic, large results, exports,
uploads that stop in the middle, floods of output, processor time), until it is ended. It is nice to
the machine: what is measured is the server, not its client.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from tornado.httpclient import AsyncHTTPClient

MARKDOWN = "![" * 14_000  # quadratic in its length: most of a second for 28 kB
_AT_ONCE = {"notebook": 8, "preview": 8, "result": 3, "export": 4, "chunk": 16, "flood": 4}
_SHOW = "import os; from IPython.display import Image, display\n" + (
    "for _ in range(3): display(Image(b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(3_500_000)))"
)


class Attacker:
    """The user's requests."""

    def __init__(self, url: str, token: str, conversation: str) -> None:
        self._url, self._conversation = url.rstrip("/"), conversation
        self._headers = {"Authorization": f"token {token}"}
        self._client = AsyncHTTPClient(max_clients=100, defaults={"request_timeout": 600})
        self._names = 0
        self._result = ""

    async def prepare(self) -> None:
        """Put the hostile files in place, and make a large result."""
        output = {"output_type": "display_data", "metadata": {}}
        cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": ""}
        cell |= {"execution_count": None}  # type: ignore[dict-item]
        data = {"text/markdown": MARKDOWN}
        book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}
        book["cells"] = [{**cell, "outputs": [{**output, "data": data}] * 5}]
        for name, text in (("a.ipynb", json.dumps(book)), ("a.md", MARKDOWN)):
            await self._ask("PUT", f"{self._here}/uploads/{name}", text)
        said = json.loads(await self._call("python", code=_SHOW))
        self._result = f"{self._here}/calls/{said['call_id']}"
        await self._call("bash", command="(while :; do :; done) & (while :; do :; done) &")

    async def attack(self, kinds: Sequence[str]) -> None:
        """Ask for all of these for ever."""
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "notebook": lambda: self._ask("GET", self._contents("a.ipynb")),
            "preview": self._preview,
            "result": lambda: self._ask("GET", self._result),
            "export": lambda: self._ask("GET", f"{self._here}/notebook"),
            "chunk": self._begin_file,
            "flood": lambda: self._call("bash", command="yes | head -c 100000000"),
        }
        await asyncio.gather(
            *(self._again(works[name]) for name in kinds for _ in range(_AT_ONCE[name]))
        )

    async def _again(self, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            await work()

    async def _preview(self) -> None:
        shell = await self._ask("GET", f"/sandbox/preview/{self._conversation}/uploads/a.md")
        path = shell.partition('src="')[2].partition('"')[0].replace("&amp;", "&")
        await self._ask("GET", path, headers={"Sec-Fetch-Dest": "iframe"})

    async def _begin_file(self) -> None:
        self._names += 1
        chunk = {"type": "file", "format": "text", "content": "x", "chunk": 1}
        await self._ask("PUT", self._contents(f"part{self._names}"), json.dumps(chunk))

    async def _call(self, tool: str, **arguments: object) -> str:
        return await self._ask("POST", f"{self._here}/tools/{tool}", json.dumps(arguments))

    async def _ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> str:
        answer = await self._client.fetch(
            f"{self._url}{path}",
            method=method,
            body=body,
            headers={**self._headers, **(headers or {})},
            raise_error=False,
        )
        if answer.code == 429:
            await asyncio.sleep(0.05)
        return answer.body.decode() if len(answer.body) < 1_000_000 else ""

    @property
    def _here(self) -> str:
        return f"/sandbox/api/conversations/{self._conversation}"

    def _contents(self, name: str) -> str:
        return f"/sandbox/c/{self._conversation}/api/contents/uploads/{name}"


async def main() -> None:
    """Attack until the end; a line on stdout says that it has begun."""
    os.nice(10)
    attacker = Attacker(*sys.argv[1:4])
    await attacker.prepare()
    print("attacking", flush=True)
    await attacker.attack(sys.argv[4:] or list(_AT_ONCE))


if __name__ == "__main__":
    asyncio.run(main())
