"""A LangChain agent with a sandbox, for asyncio: ``python langchain_agent.py "question"``.

Needs ``pip install jupyter_sandbox[client] langchain langchain-openai``, $OPENAI_API_KEY (or
another model of LangChain's), and the Jupyter Server's $JUPYTER_URL and $JUPYTER_TOKEN.
"""

import asyncio
import os
import sys
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.tools import BaseTool, StructuredTool

from jupyter_sandbox.client import AsyncConversation, AsyncSandboxClient


def sandbox_tool(conversation: AsyncConversation, schema: dict[str, Any]) -> BaseTool:
    """Make a LangChain tool of one of the sandbox's."""

    async def call(**arguments: Any) -> str:
        return (await conversation.call(schema["name"], arguments)).text

    return StructuredTool.from_function(
        coroutine=call,
        name=schema["name"],
        description=schema["description"],
        args_schema=schema["input_schema"],
    )


async def run(question: str, model: str = "openai:gpt-5") -> str:
    """Answer a question; the model works in a sandbox of its own until it is done."""
    url, token = os.environ["JUPYTER_URL"], os.environ["JUPYTER_TOKEN"]
    async with AsyncSandboxClient(url, token) as client:
        tools = await client.tools("anthropic")
        conversation = await client.conversation(title=question[:80])
        agent = create_agent(
            init_chat_model(model),
            [sandbox_tool(conversation, schema) for schema in tools.tools],
            system_prompt=tools.guidance,
        )
        state = await agent.ainvoke({"messages": [{"role": "user", "content": question}]})
        return str(state["messages"][-1].text)


if __name__ == "__main__":
    print(asyncio.run(run(sys.argv[1])))
