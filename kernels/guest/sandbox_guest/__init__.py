"""The guest: what runs inside every sandbox. Standard library only, Python 3.9 and later.

``python -m sandbox_guest`` is PID 1 of a sandbox. The host imports two modules of it and no other:
``frames`` (both ends of a stream frame alike) and ``protocol`` (the words on the wire).
"""

__version__ = "0.1.0"
