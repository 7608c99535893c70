"""Start the kernel. Imports happen here, after ``sys.path`` is what user code shall see."""

import os
import sys

# ``python -m`` puts the working directory first; a user's random.py must not shadow the library
# while the kernel starts. InteractiveShellApp.init_path() adds '' again, as for any ipykernel.
if sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

if __name__ == "__main__":
    from . import imports

    imports.defer()
    from .app import SandboxKernelApp

    imports.hide_own_path()
    SandboxKernelApp.launch_instance()
