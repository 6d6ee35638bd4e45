"""A process that is to end with the one that started it, also when that is killed with -9."""

import ctypes
import os
import signal
import sys


def die_with_parent(parent_pid: int) -> None:
    """The kernel sees to it, also where code hogs the GIL. Where it cannot, watch a pipe or socket as well."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it was gone before we asked
            os._exit(1)
