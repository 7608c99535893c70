"""A typed client of the REST API, for authors of assistants: blocking, and for asyncio.

Needs the extra ``jupyter_sandbox[client]``. It speaks HTTP and imports nothing of the server.

::

    from jupyter_sandbox.client import SandboxClient

    with SandboxClient("http://127.0.0.1:8888", token) as client:
        conversation = client.conversation(key="analysis")
        print(conversation.call("bash", {"command": "echo hello"}).text)
"""

from .asynchronous import AsyncConversation, AsyncSandboxClient
from .blocking import Conversation, SandboxClient
from .errors import ClientError, NotReachable, Refused
from .results import FileCard, Image, Output, Result, Tools

__all__ = [
    "AsyncConversation",
    "AsyncSandboxClient",
    "ClientError",
    "Conversation",
    "FileCard",
    "Image",
    "NotReachable",
    "Output",
    "Refused",
    "Result",
    "SandboxClient",
    "Tools",
]
