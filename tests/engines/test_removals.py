"""The removal of what a sandbox wrote, which the kernel may take minutes for."""

from __future__ import annotations

import asyncio
import threading

from jupyter_sandbox.engines import bubblewrap, recorded


async def test_removals_that_stand_keep_no_other_verb_waiting(short_dir, monkeypatch):
    goes_on = threading.Event()
    standing = threading.Semaphore(0)

    def stand(root) -> None:
        standing.release()
        goes_on.wait(30)
        root.rmdir()

    monkeypatch.setattr(recorded, "delete", stand)
    engine = bubblewrap.BubblewrapEngine(state_dir=short_dir, stage_dir=str(short_dir / "stage"))
    ids = [f"{number:024x}" for number in range(2 * bubblewrap._THREADS)]
    for each in ids:
        (short_dir / "data" / each).mkdir(parents=True)
    removals = [asyncio.ensure_future(engine.remove(each)) for each in ids]
    try:
        for _ in range(bubblewrap._THREADS):
            assert await asyncio.to_thread(standing.acquire, timeout=10)
        async with asyncio.timeout(5):
            assert await engine.list("nobody") == []
    finally:
        goes_on.set()
        await asyncio.gather(*removals)
        await engine.close()
