"""The Python kernel of a sandbox: an ipykernel whose output is bounded at the source.

``python -m sandbox_python -f CONNECTION_FILE`` starts it. Nothing in here guards the host: code in
the kernel can undo all of it. It keeps a flood from being sent at all; the host bounds what it
receives once more.
"""

__version__ = "0.1.0"
