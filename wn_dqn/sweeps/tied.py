"""``python -m wn_dqn.sweeps.tied PARENT ARGS...``: `wn-dqn ARGS...` that is asked to stop when its parent dies.

Only Linux can do this. Elsewhere the run goes on, and whoever continues the sweep waits for it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, *args = sys.argv[1:]
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored, and it is how a sweep asks
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
        if os.getppid() != int(parent):
            sys.exit("its parent has died")
    sys.argv = ["wn-dqn", *args]
    runpy.run_module("wn_dqn", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
