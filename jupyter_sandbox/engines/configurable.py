"""The base of engines that administrators configure: an ``Engine`` that is a ``Configurable``."""

from __future__ import annotations

import os
from abc import ABCMeta
from typing import Any

from traitlets import TraitError, Unicode
from traitlets.config import LoggingConfigurable
from traitlets.traitlets import MetaHasTraits

from .base import Engine


class _EngineMeta(MetaHasTraits, ABCMeta):
    """Traits and abstract methods in one class."""


class ConfigurableEngine(LoggingConfigurable, Engine, metaclass=_EngineMeta):
    """An engine with traits and ``self.log``."""

    async def recipe(self) -> str:
        """See ``Engine.recipe``: the name, and the settings as they are."""
        settings = {name: str(getattr(self, name)) for name in self.trait_names(config=True)}
        return f"{self.name} {sorted(settings.items())}"


class DirectoryTrait(Unicode[str, Any]):
    """The absolute path of a directory: a string or a ``Path``; ``~`` is the home."""

    def validate(self, obj: Any, value: Any) -> str:
        """Give it as a string."""
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        path = os.path.expanduser(super().validate(obj, text))
        if not os.path.isabs(path):
            raise TraitError(f"{path!r} is not an absolute path")
        return os.path.abspath(path)
