"""Which engine is used, and the sentence that says why."""

import pytest

from jupyter_sandbox.engines.base import EngineHealth
from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.engines.selection import choose
from jupyter_sandbox.testing import EngineThatHangs, EngineThatIsDown


class Named(EngineThatIsDown):
    """An engine that only answers checks."""

    def __init__(self, name: str, *health: object) -> None:
        self.name = name
        self.health = EngineHealth(*health)
        self.closed = 0

    async def check(self) -> EngineHealth:
        return self.health

    async def close(self) -> None:
        self.closed += 1


def works(name: str) -> Named:
    return Named(name, True, f"{name} answers", "1", (f"{name} is weak",))


def fails(name: str) -> Named:
    return Named(name, False, f"no {name} here")


async def test_auto_takes_the_first_that_works_and_says_why():
    docker, bubblewrap = works("docker"), works("bubblewrap")
    choice = await choose("auto", docker, bubblewrap)
    assert (choice.engine, choice.available) == (docker, True)
    assert choice.reason == "docker: docker answers"
    assert choice.warnings == ("docker is weak",)


async def test_auto_falls_back_and_says_what_was_passed_over():
    docker, bubblewrap = fails("docker"), works("bubblewrap")
    choice = await choose("auto", docker, bubblewrap)
    assert choice.engine is bubblewrap
    assert choice.reason == "bubblewrap: bubblewrap answers (docker: no docker here)"


async def test_an_engine_asked_for_by_name_is_never_replaced():
    docker, bubblewrap = fails("docker"), works("bubblewrap")
    choice = await choose("docker", docker, bubblewrap)
    assert (choice.engine, choice.available) == (docker, False)
    assert choice.reason == "docker: no docker here"


async def test_when_nothing_works_the_reason_names_every_cause():
    choice = await choose("auto", fails("docker"), fails("bubblewrap"))
    assert not choice.available
    assert choice.reason == "docker: no docker here; bubblewrap: no bubblewrap here"


async def test_an_engine_that_hangs_is_passed_over_in_time():
    hanging, bubblewrap = EngineThatHangs(), works("bubblewrap")
    choice = await choose("auto", hanging, bubblewrap, timeout_seconds=0.05)
    assert choice.engine is bubblewrap
    assert "hangs: no answer within 0.05 s" in choice.reason
    assert hanging.waiting == 0


async def test_engines_that_are_not_used_are_closed():
    docker, bubblewrap = works("docker"), works("bubblewrap")
    await choose("bubblewrap", docker, bubblewrap)
    assert (docker.closed, bubblewrap.closed) == (1, 0)


async def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="use one of auto, docker, bubblewrap"):
        await choose("podman", works("docker"), works("bubblewrap"))


async def test_docker_without_a_service_is_not_available_and_safe_to_say(short_dir):
    engine = DockerEngine(docker_host=f"unix://{short_dir}/none.sock")
    choice = await choose("docker", engine)
    assert not choice.available
    assert choice.reason == "docker: Docker does not answer"
    await engine.close()


@pytest.mark.docker
async def test_docker_without_the_image_says_how_to_build_it():
    choice = await choose("auto", DockerEngine(image="jsbx-no-such-image"), works("bubblewrap"))
    assert choice.engine.name == "bubblewrap"
    assert "Docker" in choice.reason
    assert "the image jsbx-no-such-image is missing: run `jupyter sandbox build-image`" in (
        choice.reason
    )


@pytest.mark.docker
async def test_docker_with_its_image_is_chosen_and_tells_its_version():
    engine = DockerEngine()
    choice = await choose("auto", engine, works("bubblewrap"))
    assert choice.engine is engine
    assert choice.reason.startswith("docker: ")
    assert "answers at /" in choice.reason
    await engine.close()
