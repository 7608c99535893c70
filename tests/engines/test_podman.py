"""What Podman's Docker API takes otherwise than Docker does, and would not say."""

from podman_stub import PodmanStub

from jupyter_sandbox.engines.docker import DockerEngine


async def test_a_runtime_that_podman_would_ignore_is_refused_and_not_reported_as_in_force(
    short_dir,
):
    with PodmanStub(short_dir / "podman.sock") as podman:
        engine = DockerEngine(docker_host=podman.url, oci_runtime="runsc")
        health = await engine.check()
        await engine.close()
    assert not health.available
    assert "containers.conf" in health.reason
