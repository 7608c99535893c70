"""The egress proxy: a process of its own that lets sandboxes reach the hosts they may.

``EgressProxy`` (``proxies/egress.py``) runs it for the Jupyter server. It listens on one unix
socket per sandbox (the socket is the identity), speaks plain HTTP-proxy there, and asks ``policy``
about everything. Whatever comes in over those sockets is hostile.
"""
