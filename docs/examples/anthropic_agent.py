"""An agent on Anthropic's Messages API with a sandbox: ``python anthropic_agent.py "question"``.

Needs ``pip install jupyter_sandbox[client] anthropic``, $ANTHROPIC_API_KEY, and the Jupyter
Server's $JUPYTER_URL and $JUPYTER_TOKEN.
"""

import os
import sys

import anthropic

from jupyter_sandbox.client import SandboxClient


def run(question: str, model: str = "claude-sonnet-4-5") -> str:
    """Answer a question; the model works in a sandbox of its own until it is done."""
    claude = anthropic.Anthropic()
    with SandboxClient(os.environ["JUPYTER_URL"], os.environ["JUPYTER_TOKEN"]) as client:
        tools = client.tools("anthropic")
        conversation = client.conversation(title=question[:80])
        messages = [{"role": "user", "content": question}]
        while True:
            answer = claude.messages.create(
                model=model,
                max_tokens=8192,
                system=tools.guidance,
                tools=list(tools.tools),
                messages=messages,
            )
            messages.append({"role": "assistant", "content": answer.content})
            calls = [block for block in answer.content if block.type == "tool_use"]
            if not calls:
                return "".join(block.text for block in answer.content if block.type == "text")
            results = [conversation.call(c.name, c.input).to_anthropic(c.id) for c in calls]
            messages.append({"role": "user", "content": results})


if __name__ == "__main__":
    print(run(sys.argv[1]))
