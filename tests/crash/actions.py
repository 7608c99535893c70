"""What leads to the points: each does something as a user does, after what has to be there first.

A generator: what comes before ``yield`` is preparation, and is acknowledged; the point is armed
there; what comes after it does not come to its end. An action must pass each of its points.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

from .scene import OUTPUTS, Scene

Action = Callable[[Scene], Iterator[None]]

_ECHO = {"command": "echo hello"}


def first_call(scene: Scene) -> Iterator[None]:
    talk = scene.new()
    scene.upload(talk, "first.bin", scene.some_bytes())
    yield
    scene.call(talk, "bash", **_ECHO)


def first_call_of_all(scene: Scene) -> Iterator[None]:
    """The first call to a server that has never made a sandbox."""
    scene.site.start()
    scene.site.wait_answers()
    yield from first_call(scene)


def call_after_the_end(scene: Scene) -> Iterator[None]:
    talk = scene.new()
    scene.upload(talk, "data.bin", scene.some_bytes())
    scene.share(talk, "result.bin", "before the end")
    scene.by_hand(talk, "terminate")
    # What is left of the old one: as if its server had died before it was removed.
    yield
    scene.call(talk, "bash", **_ECHO)


def call_after_a_restart(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.site.kill()
    scene.site.start()
    scene.site.wait_answers()
    scene.call(talk, "bash", **_ECHO)


def suspend(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.call(talk, "bash", **_ECHO)
    yield
    scene.by_hand(talk, "suspend")


def wake(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.by_hand(talk, "suspend")
    yield
    scene.by_hand(talk, "wake")


def call_to_a_suspended_one(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.by_hand(talk, "suspend")
    yield
    scene.call(talk, "bash", **_ECHO)


def wake_after_a_restart(scene: Scene) -> Iterator[None]:
    """By a server that has not been attached to it."""
    talk = scene.lived_in()
    scene.by_hand(talk, "suspend")
    scene.site.kill()
    scene.site.start()
    scene.site.wait_answers()
    yield
    scene.by_hand(talk, "wake")


def terminate(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.by_hand(talk, "terminate")


def terminate_a_suspended_one(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.by_hand(talk, "suspend")
    yield
    scene.by_hand(talk, "terminate")


def delete(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.delete(talk)


def upload(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    data = scene.some_bytes()
    yield
    scene.upload(talk, "new.bin", data)


def replace_an_upload(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.upload(talk, "again.bin", scene.some_bytes())
    yield
    scene.upload(talk, "again.bin", scene.some_bytes())
    time.sleep(1)  # the old bytes are removed after the answer


def delete_an_upload(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.upload(talk, "old.bin", scene.some_bytes())
    yield
    scene.delete_upload(talk, "old.bin")


def rename_an_upload(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.upload(talk, "name.bin", scene.some_bytes())
    yield
    scene.rename_upload(talk, "name.bin", "renamed.bin")


def first_upload(scene: Scene) -> Iterator[None]:
    talk = scene.new()
    data = scene.some_bytes()
    yield
    scene.upload(talk, "first.bin", data)


def share(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.share(talk, "new.txt", "shared")


def share_again(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.share(talk, "again.txt", "the first version")
    yield
    scene.share(talk, "again.txt", "the second version")


def remove_a_share(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.share(talk, "removed.txt", "removed")
    yield
    scene.remove_share(talk, "removed.txt")


def command(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.begin(talk, "bash", command="sleep 1; echo done")
    time.sleep(5)


def cell(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.begin(talk, "python", code="import time; time.sleep(1)")
    time.sleep(5)


def first_cell(scene: Scene) -> Iterator[None]:
    talk = scene.new()
    yield
    scene.call(talk, "python", code="print(1)")


def short_command(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    yield
    scene.call(talk, "bash", **_ECHO)
    time.sleep(2)  # it is written down after the answer


def first_start(scene: Scene) -> Iterator[None]:
    """Start a server where there never was one."""
    yield
    scene.site.start()
    scene.site.wait_answers()


def stop(scene: Scene) -> Iterator[None]:
    talk = scene.lived_in()
    scene.call(talk, "bash", **_ECHO)
    yield
    scene.site.signal(signal.SIGTERM)
    scene.site.has_ended()


ACTIONS: dict[str, Action] = {
    name: value
    for name, value in globals().items()
    if callable(value) and getattr(value, "__module__", "") == __name__ and name[0] != "_"
}

__all__ = ["ACTIONS", "OUTPUTS", "Action"]
