"""``/sandbox/api/openapi.json``: every route as an OpenAPI 3.1 document.

The document is written by hand (``openapi.yaml``) and held to the table of routes and to the
server's answers by tests.
"""
