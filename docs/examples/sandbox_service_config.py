# The configuration of a server that many users share: sandboxes, and nothing that is the server's.
from jupyter_server.auth import Authorizer

c = get_config()  # noqa


class SandboxOnly(Authorizer):
    """Refuses the server's own kernels, files and terminals, which all users would share.

    The routes of sandboxes decide by themselves who may what.
    """

    def is_authorized(self, handler, user, action, resource):
        """Refuse it."""
        return False


c.ServerApp.authorizer_class = SandboxOnly
c.ServerApp.terminals_enabled = False
