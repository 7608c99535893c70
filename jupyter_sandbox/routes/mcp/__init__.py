"""The Model Context Protocol over streamable HTTP: the tools for any MCP client.

``messages`` reads and refuses, ``content`` words results, ``in_flight`` knows what can be
cancelled, ``handler`` is the route.
"""
