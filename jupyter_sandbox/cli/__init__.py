"""The command line, ``jupyter sandbox ...``: knows the parts it runs; no part knows it."""
