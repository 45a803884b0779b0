"""End what a command leaves behind: daemons it started would go on writing into a layer that is done.

While it runs, this process is who orphans below it come to (PR_SET_CHILD_SUBREAPER, prctl(2)), however they
have detached themselves.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chlaunch.errors import BuildError

PR_SET_CHILD_SUBREAPER = 36

# Seconds until what was killed is no more; then it hangs in the kernel, and can't write.
ENDING_MOST = 5.0
LOOK_EVERY = 0.001


@contextmanager
def reaped() -> Iterator[None]:
    """Afterwards, end all children that this process got meanwhile, by whomever: it does one step at a time.

    Raises:
        BuildError: one can't be ended, and may go on writing.

    """
    before = set(_children())
    _adopt(1)
    try:
        yield
    finally:
        left = _end_all_but(before)
        _adopt(0)
    if left:
        shown = ", ".join(map(str, sorted(left)[:5]))
        raise BuildError(
            f"build failed: processes that RUN has started can't be ended: {shown}",
            "ps -o pid,stat,wchan,args",
        )


def _adopt(state: int) -> None:
    """Be, with 1, who orphans come to; 0: no more."""
    import ctypes  # noqa: PLC0415  4 ms to load, and not for what is cached

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, state, 0, 0, 0)


def _end_all_but(before: set[int]) -> set[int]:
    """End children, with those that come to us meanwhile; return whom that did not end."""
    deadline = time.monotonic() + ENDING_MOST
    while (left := set(_children()) - before) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(LOOK_EVERY)
    return left


def _children() -> list[int]:
    """Return the PIDs of this process's children (proc_pid_task(5))."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.extend(int(pid) for pid in path.read_text().split())
    return found
