"""The one error of the image build that a person can put right. Shown without a traceback."""

from __future__ import annotations


class ImageBuildError(Exception):
    """The image cannot be built; the message says why and what to do.

    The message often quotes an outside tool (the engine, mmdebstrap), so it may hold host paths: it
    is for the administrator's terminal, never for users or models.
    """
