"""``python -m jupyter_sandbox.proxies.forward``: started by ``EgressProxy``, by nobody else."""

from .process import run

if __name__ == "__main__":
    run()
