"""Errors of the Docker client, told as ours: what is safe to show, and the rest for the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker.errors
import requests

from ..errors import Unavailable


@contextlib.contextmanager
def translated(doing: str, image: str = "") -> Iterator[None]:
    """Raise ``Unavailable`` for whatever the SDK or its HTTP client raises.

    Parameters
    ----------
    doing : str
        What was tried, for the message: ``"start the sandbox"``.
    image : str
        Named when it is missing.
    """
    try:
        yield
    except docker.errors.ImageNotFound as exc:
        raise Unavailable(missing_image(image), status=503, detail=str(exc)) from exc
    except docker.errors.APIError as exc:
        detail = str(exc.explanation or exc)
        if exc.status_code == 404 and "No such image" in detail:
            raise Unavailable(missing_image(image), status=503, detail=detail) from exc
        raise Unavailable(f"Docker could not {doing}", detail=detail) from exc
    except requests.exceptions.Timeout as exc:
        raise Unavailable(f"Docker did not {doing} in time", status=504, detail=repr(exc)) from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        raise Unavailable("Docker does not answer", detail=repr(exc)) from exc


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Raise ``Unavailable`` where an answer of the service lacks what it must have.

    Around a whole verb, whose statements take answers apart: whatever listens there, it is not
    the service that was looked at when the client connected.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
        raise Unavailable("Docker gave an answer that makes no sense", detail=repr(exc)) from exc


def missing_image(image: str) -> str:
    """Give the sentence for an image that is not there."""
    return f"the image {image} is missing: run `jupyter sandbox build-image`"
