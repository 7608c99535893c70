"""The agents of docs/examples, with a scripted model in the place of the service's."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest
from tornado import httpserver, netutil, web

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
COMMAND = {"command": "echo $((6 * 7))"}


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """An agent never meets an engine: one shows it."""
    return request.param


class Model(web.RequestHandler):
    """First calls bash, then answers with what the tool gave. Speaks both services' languages."""

    def initialize(self, heard: list) -> None:
        self.heard = heard

    def post(self, *_: str) -> None:
        body = json.loads(self.request.body)
        self.heard.append(body)
        name = self._anthropic if self.request.path.endswith("messages") else self._openai
        self.finish(name(body))

    def _anthropic(self, body: dict) -> dict:
        last = body["messages"][-1]["content"]
        if isinstance(last, str):
            content = [{"type": "tool_use", "id": "t1", "name": "bash", "input": COMMAND}]
        else:
            content = [{"type": "text", "text": "It is " + last[0]["content"][0]["text"]}]
        return {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }

    def _openai(self, body: dict) -> dict:
        last = body["messages"][-1]
        message: dict = {"role": "assistant", "content": None}
        if last["role"] == "tool":
            message["content"] = f"It is {last['content']}"
        else:
            function = {"name": "bash", "arguments": json.dumps(COMMAND)}
            message["tool_calls"] = [{"id": "t1", "type": "function", "function": function}]
        return {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


@pytest.fixture
def heard(jp_asyncio_loop, jp_serverapp, api, monkeypatch):
    """What the model was sent; the environment leads the examples to it and to the server."""
    requests: list[dict] = []

    async def listen() -> httpserver.HTTPServer:
        server = httpserver.HTTPServer(web.Application([(r"/(.*)", Model, {"heard": requests})]))
        (listener,) = netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([listener])
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        return server

    server = jp_asyncio_loop.run_until_complete(listen())
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "scripted")
    url = f"http://127.0.0.1:{jp_serverapp.port}{jp_serverapp.base_url}"
    monkeypatch.setenv("JUPYTER_URL", url)
    monkeypatch.setenv("JUPYTER_TOKEN", jp_serverapp.identity_provider.token)
    yield requests
    server.stop()
    jp_asyncio_loop.run_until_complete(server.close_all_connections())


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_agent_on_anthropics_api(heard):
    run = load("anthropic_agent").run
    answer = await asyncio.to_thread(run, "What is six times seven?")
    assert "42\n" in answer
    assert "sandbox" in heard[0]["system"]
    assert {tool["name"] for tool in heard[0]["tools"]} >= {"bash", "share_files"}


async def test_the_agent_on_openais_api(heard):
    run = load("openai_agent").run
    answer = await asyncio.to_thread(run, "What is six times seven?")
    assert "42\n" in answer
    assert heard[0]["messages"][0]["role"] == "system"


async def test_the_agent_on_langchain(heard):
    run = load("langchain_agent").run
    assert "42\n" in await run("What is six times seven?")
    names = {tool["function"]["name"] for tool in heard[0]["tools"]}
    assert names >= {"bash", "view", "create_file", "str_replace", "share_files"}


def test_every_example_has_a_test():
    source = Path(__file__).read_text()
    for example in EXAMPLES.glob("*_agent.py"):
        assert f'load("{example.stem}")' in source
