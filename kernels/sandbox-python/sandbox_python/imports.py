"""What need not be imported to start a kernel, and what user code need not see.

Half of an ipykernel's start is ``jupyter_client/__init__`` with its managers, clients and
provisioners, of which a kernel uses two modules: it is deferred, whoever asks for a name of it gets
the real one. The debugger brings debugpy and is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType


def defer() -> None:
    """Make the package ``jupyter_client`` run its ``__init__`` only when a name of it is asked for.

    Its submodules import as ever: they need the package's ``__path__`` only.
    """
    name = "jupyter_client"
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    package = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def __getattr__(attribute: str) -> object:
        if attribute.startswith("__") and attribute != "__version__":
            raise AttributeError(attribute)
        connect = importlib.import_module(name + ".connect")  # what ipykernel asks for is in there
        if hasattr(connect, attribute):
            return getattr(connect, attribute)
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = __getattr__
    sys.modules[name] = package


def without_debugger() -> None:
    """Stand in for ``ipykernel.debugger`` with a module that says there is none."""
    stub = ModuleType("ipykernel.debugger")
    vars(stub).update(_is_debugpy_available=False, Debugger=object)
    sys.modules.setdefault("ipykernel.debugger", stub)


def hide_own_path() -> None:
    """Take from ``sys.path`` and ``PYTHONPATH`` what was put there for this package alone.

    User code and its child processes then see the paths of an ordinary Python. Directories that
    came another way (``site-packages``) stay.
    """
    from sandbox_guest import output

    files = (os.path.abspath(file) for file in (__file__, output.__file__))
    ours = {os.path.dirname(os.path.dirname(file)) for file in files}
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    hidden = {entry for entry in entries if entry and os.path.abspath(entry) in ours}
    if not hidden:
        return
    sys.path[:] = [path for path in sys.path if path not in hidden]
    rest = [entry for entry in entries if entry and entry not in hidden]
    if rest:
        os.environ["PYTHONPATH"] = os.pathsep.join(rest)
    else:
        del os.environ["PYTHONPATH"]
