"""What a sandbox is made of and how, as a digest: two with the same one are alike.

For sandboxes that are made before somebody wants one: with another digest they are out of date. It
knows a spec and text, and asks nobody.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from ..engines.base import SandboxSpec


def digest_of(spec: SandboxSpec, engine_recipe: str, rules: str) -> str:
    """Give the digest.

    Parameters
    ----------
    spec : SandboxSpec
        With an id that stands for all. The guest and the site's files are mounted from directories
        that are named by their contents.
    engine_recipe : str
        As the engine gives it.
    rules : str
        What sandboxes may reach.
    """
    parts = [json.dumps(asdict(spec), sort_keys=True, default=str), engine_recipe, rules]
    return hashlib.sha256("\0".join([*parts, _own_version()]).encode()).hexdigest()


@functools.cache
def _own_version() -> str:
    try:
        return version("jupyter_sandbox")
    except PackageNotFoundError:  # run from its sources
        return ""
