"""Blocking calls on threads of their own, so that none ever stands on the event loop.

Each engine has one ``BlockingCalls``; it knows nothing of what it runs. The rule: a call that was
begun runs to its end even if nobody waits for it any more, and then its ``undo`` runs.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class BlockingCalls:
    """A bounded number of threads.

    Parameters
    ----------
    name : str
        Prefix of the threads' names.
    threads : int
        Calls at once; further ones wait.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<BlockingCalls {self._name} threads={self._threads}>"

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Give what ``call`` gives, or raise what it raises."""
        submitted = self._submit(functools.partial(call, *args, **kwargs))
        return await asyncio.wrap_future(submitted)

    async def run_or_undo(self, call: Callable[[], _T], undo: Callable[[], object]) -> _T:
        """Give what ``call`` gives; if nobody waits any more when it succeeds, ``undo`` it."""
        submitted = self._submit(call)
        try:
            return await asyncio.shield(asyncio.wrap_future(submitted))
        except asyncio.CancelledError:
            if submitted.cancel():  # it had not begun: the threads are busy with others
                raise
            submitted.add_done_callback(functools.partial(_undo, undo))
            raise

    async def close(self) -> None:
        """Wait for the calls that run and end the threads. Twice is once."""
        executor, self._executor = self._executor, None
        if executor is not None:
            await asyncio.to_thread(executor.shutdown, wait=True)

    def _submit(self, call: Callable[[], _T]) -> Future[_T]:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        return self._executor.submit(call)


def _undo(undo: Callable[[], object], done: Future[Any]) -> None:
    """Run in the thread of the finished call (or at once when it was finished already)."""
    if not done.cancelled() and done.exception() is None:
        undo()
