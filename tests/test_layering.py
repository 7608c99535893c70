"""The layering law: an arrow is an import, and this table has every arrow that may be.

``routes → tools → conversations → sandbox → engines``; beside that road, policy, stores and proxies
are asked and never ask; models, errors and metrics know nobody. The edges of the package (the application,
the command line, settings, the demo, the test engines) stand in the same table with all they may
know. Imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "jupyter_sandbox"
GUEST = "sandbox_guest"
KERNEL = "sandbox_python"

_GROUND = {"models", "errors", "metrics", "shortages"}
_GROUND |= {"event_loop", "fair_turns", "encoded_json"}
_ASKED = {"policy", "stores", "proxies", "previews"}
_INTERFACE = "engines.base"  # what an engine is; which engines there are, only app knows

# room: what it may import of ours besides itself. "room.module" allows that one module.
MAY_IMPORT: dict[str, set[str]] = {
    "models": set(),
    "errors": set(),
    "shortages": {"errors"},  # asked at the edges
    "metrics": set(),  # told by everybody
    "event_loop": set(),
    "fair_turns": {"errors"},  # whatever is limited for the process is shared here
    "encoded_json": set(),
    # asked but never asking
    "policy": _GROUND,
    "stores": _GROUND,
    "proxies": {"policy", *_GROUND},  # a process of its own decides where it connects
    "previews": {"policy", *_GROUND},  # a process of its own cleans what is hostile
    "events": {"stores", *_GROUND},  # tells others what the audit log has written
    # the road, from its end to its beginning
    "engines": _GROUND,
    "sandbox": {_INTERFACE, *_GROUND, *_ASKED},
    "conversations": {"sandbox", *_GROUND, *_ASKED},
    "tools": {"conversations", "sandbox", *_GROUND, *_ASKED},
    "routes": {"tools", "conversations", "services", *_GROUND, *_ASKED},
    # the edges
    "services": {"tools", "conversations", "sandbox", _INTERFACE, *_GROUND, *_ASKED},
    "settings": {_INTERFACE, "policy", *_GROUND},
    "directories": {"stores", "errors"},
    "client": set(),  # it speaks HTTP, from wherever it is installed
    "demo": set(),  # it speaks HTTP, as any assistant does
    "cli": {"demo", "policy", "stores", "directories", "__init__", *_GROUND},
    "testing": {"engines", "sandbox", "conversations", "tools", *_GROUND, *_ASKED},
    "app": {
        *("routes", "tools", "conversations", "sandbox", "engines", "services", "settings"),
        "directories",
        "events",
        *_GROUND,
        *_ASKED,
    },
    "__init__": {"app"},  # the extension point
}

# Of what runs inside, the host takes the framing and the words on the wire; the notice, so that
# both sides word it alike; and the kernelspec that lies in the kernel's package.
HOST_MAY_IMPORT_INSIDE = {
    "sandbox": {"frames", "protocol", "output.notice"},
    "tools": {"output.notice"},
}
KERNELSPEC_ROOM = "sandbox"

HTTP_ROOM = "routes"  # the only one that raises HTTPError
HTTP_MODULE = "tornado.web"


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Give what a module imports as dotted names, relative ones resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Give a sentence for each import of a host module that the law forbids."""
    room = module.split(".")[1] if module != PACKAGE else "__init__"
    if room not in MAY_IMPORT:
        return [f"{module}: the room `{room}` is not in the table"]
    found = []
    for name in imports(source, module, is_package):
        top, _, rest = name.partition(".")
        if top == PACKAGE:
            if not _is_own_arrow(room, rest):
                found.append(f"{module}: {room} must not import {name}")
        elif top == GUEST:
            if not _names(HOST_MAY_IMPORT_INSIDE.get(room, set()), rest):
                found.append(f"{module}: {room} must not import {name}")
        elif top == KERNEL:
            if room != KERNELSPEC_ROOM or rest:
                found.append(f"{module}: {room} must not import {name}")
        elif _names({HTTP_MODULE}, name) and room != HTTP_ROOM:
            found.append(f"{module}: only {HTTP_ROOM} may import {name}")
    return found


def guest_violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Give a sentence for each import of a guest module that is not standard library."""
    allowed = {*sys.stdlib_module_names, GUEST}
    names = imports(source, module, is_package)
    return [
        f"{module}: the guest must not import {n}" for n in names if n.split(".")[0] not in allowed
    ]


def _is_own_arrow(room: str, target: str) -> bool:
    """Say whether a room may import ``target``, a dotted name below the package."""
    to = target.split(".")[0]
    if to not in MAY_IMPORT:
        to, target = "__init__", "__init__"  # a name of the package itself
    return to == room or _names(MAY_IMPORT[room], target)


def _names(allowed: set[str], dotted: str) -> bool:
    """Say whether a dotted name is an allowed one, or in it."""
    return any(dotted == each or dotted.startswith(f"{each}.") for each in allowed)


def _modules(directory: Path, package: str) -> list[tuple[str, str, bool]]:
    found = []
    for path in sorted(directory.rglob("*.py")):
        parts = [package, *path.relative_to(directory).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append((path.read_text(encoding="utf-8"), name, is_package))
    assert len(found) > 5, f"no modules in {directory}"
    return found


def test_every_import_of_the_host_is_an_arrow_of_the_table():
    found = [v for m in _modules(ROOT / PACKAGE, PACKAGE) for v in violations(*m)]
    assert found == []


def test_the_guest_imports_the_standard_library_and_itself_only():
    modules = _modules(ROOT / "kernels" / "guest" / GUEST, GUEST)
    assert [v for m in modules for v in guest_violations(*m)] == []


def test_every_room_that_there_is_stands_in_the_table_and_in_no_circle():
    rooms = {path.stem for path in (ROOT / PACKAGE).iterdir() if path.suffix == ".py"}
    rooms |= {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert rooms <= set(MAY_IMPORT)

    def reach(room: str, seen: tuple[str, ...]) -> None:
        assert room not in seen, f"a circle: {' → '.join([*seen, room])}"
        for target in MAY_IMPORT[room]:
            if target != "__init__":  # cli takes the version from there
                reach(target.split(".")[0], (*seen, room))

    for room in MAY_IMPORT:
        reach(room, ())


@pytest.mark.parametrize(
    ("module", "source", "forbidden"),
    [
        ("engines.docker", "from ..sandbox.link import GuestLink", "sandbox.link.GuestLink"),
        ("engines.docker", "def f():\n    from ..tools import bash", "tools.bash"),
        ("sandbox.link", "from ..engines.docker import DockerEngine", "engines.docker"),
        ("sandbox.link", "from ..conversations import states", "conversations.states"),
        ("conversations.states", "import jupyter_sandbox.tools.bash", "tools.bash"),
        ("tools.bash", "from ..routes.base import endpoint", "routes.base"),
        ("tools.bash", "from .. import services", "services"),
        ("routes.base", "from ..sandbox.link import GuestError", "sandbox.link"),
        ("policy.names", "from ..stores.database import Database", "stores.database"),
        ("stores.database", "from ..policy.names import decide_file_name", "policy.names"),
        ("models", "from .errors import SandboxError", "errors"),
        ("errors", "from jupyter_sandbox import models", "models"),
        ("tools.bash", "from ..app import SandboxApp", "app.SandboxApp"),
        ("tools.bash", "if TYPE_CHECKING:\n    from ..testing import FakeEngine", "testing"),
        ("app", "from .testing import FakeEngine", "testing"),
        ("cli.demo", "from ..engines.docker import DockerEngine", "engines.docker"),
        ("demo.assistant", "from ..models import Limits", "models.Limits"),
        ("settings", "from .engines import bubblewrap", "engines.bubblewrap"),
        ("tools.bash", "from tornado.web import HTTPError", "tornado.web.HTTPError"),
        ("app", "from tornado import web", "tornado.web"),
        ("sandbox.link", "import tornado.web as w", "tornado.web"),
        ("sandbox.link", "from sandbox_guest.trees import Tree", "sandbox_guest.trees"),
        ("sandbox.link", "from sandbox_guest.output import decode", "sandbox_guest.output"),
        ("tools.bash", "from sandbox_guest import protocol", "sandbox_guest.protocol"),
        ("engines.docker", "import sandbox_guest", "sandbox_guest"),
        ("tools.python", "import sandbox_python", "sandbox_python"),
        ("sandbox.kernel_manager", "from sandbox_python.kernel import K", "sandbox_python.kernel"),
        ("helpers.strings", "import os", "not in the table"),
    ],
)
def test_a_forbidden_import_is_found(module, source, forbidden):
    found = violations(source, f"{PACKAGE}.{module}")
    assert len(found) == 1
    assert forbidden in found[0]


@pytest.mark.parametrize(
    ("module", "source", "is_package"),
    [
        ("sandbox.sandboxes", "from ..engines.base import Engine, Mount", False),
        ("tools.calls", "from ..stores.database import Database\nfrom .bash import run", False),
        ("tools.run", "import asyncio\nfrom ..sandbox.link import GuestError", False),
        ("routes", "from .base import SandboxHandler\nfrom . import tools", True),
        ("routes.base", "from tornado import web\nimport tornado.web", False),
        ("cli.app", "from jupyter_sandbox import __version__", False),
        ("app", "from .engines.docker import DockerEngine\nfrom tornado import ioloop", False),
        ("sandbox.link", "from sandbox_guest.frames import Frame\nimport sandbox_python", False),
    ],
)
def test_an_allowed_import_is_left_alone(module, source, is_package):
    assert violations(source, f"{PACKAGE}.{module}", is_package) == []


def test_a_forbidden_import_of_the_guest_is_found():
    module = f"{GUEST}.bash.kernel"
    assert guest_violations("import os, json\nfrom ..streams import Stream", module) == []
    for source in ("import zmq", "from jupyter_sandbox import models", "import sandbox_python"):
        assert len(guest_violations(source, module)) == 1
