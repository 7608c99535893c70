"""Puts the filter of ``policy.log_text`` where the records of a server pass."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ..policy.log_text import LOG_FILTER

_OF_LIBRARIES = ("tornado.access", "tornado.application", "tornado.general", "asyncio")


def guard_logs(*logs: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Let these loggers, those of the libraries, and all their handlers show no text raw.

    Of other loggers (a handler of the root gets them) too what reaches the same handlers.
    """
    loggers = [log.logger if isinstance(log, logging.LoggerAdapter) else log for log in logs]
    loggers += [logging.getLogger(name) for name in _OF_LIBRARIES]
    for logger in loggers:
        logger.addFilter(LOG_FILTER)
        for handler in _handlers(logger):
            handler.addFilter(LOG_FILTER)
    others = [*logging.root.handlers]
    if logging.lastResort is not None:
        others.append(logging.lastResort)
    for handler in others:
        handler.addFilter(LOG_FILTER)


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Give the handlers that its records reach."""
    at: logging.Logger | None = logger
    while at is not None:
        yield from at.handlers
        at = at.parent if at.propagate else None
