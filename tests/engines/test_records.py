"""The records' lock, when the directory that it lies in comes and goes."""

from __future__ import annotations

import threading

from jupyter_sandbox.engines.records import Records


def test_removing_at_once_from_many_threads_never_fails(tmp_path):
    records = Records(tmp_path / "state")
    failures: list[BaseException] = []

    def remove(sandbox_id: str) -> None:
        try:
            with records.lock(sandbox_id, 10):
                records.remove(sandbox_id)
        except BaseException as exc:
            failures.append(exc)

    for number in range(200):
        sandbox_id = f"{number:024x}"
        threads = [threading.Thread(target=remove, args=(sandbox_id,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert records.ids() == []
