"""An agent on OpenAI's Chat Completions API with a sandbox: ``python openai_agent.py "question"``.

Works with every service that speaks this API (``OPENAI_BASE_URL``). Needs
``pip install jupyter_sandbox[client] openai``, $OPENAI_API_KEY, and the Jupyter Server's
$JUPYTER_URL and $JUPYTER_TOKEN.
"""

import json
import os
import sys

import openai

from jupyter_sandbox.client import SandboxClient


def run(question: str, model: str = "gpt-5") -> str:
    """Answer a question; the model works in a sandbox of its own until it is done."""
    service = openai.OpenAI()
    with SandboxClient(os.environ["JUPYTER_URL"], os.environ["JUPYTER_TOKEN"]) as client:
        tools = client.tools("openai")
        conversation = client.conversation(title=question[:80])
        messages = [
            {"role": "system", "content": tools.guidance},
            {"role": "user", "content": question},
        ]
        while True:
            answer = service.chat.completions.create(
                model=model, tools=list(tools.tools), messages=messages
            )
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return message.content or ""
            for call in message.tool_calls:
                arguments = json.loads(call.function.arguments)
                result = conversation.call(call.function.name, arguments)
                messages.append(result.to_openai(call.id))


if __name__ == "__main__":
    print(run(sys.argv[1]))
