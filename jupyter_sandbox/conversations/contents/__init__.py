"""A conversation's files as Jupyter's contents service shows them."""
