"""A launcher that is a child, while it must look as if it were this process: signals, and how it ends."""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

# What users and batch systems send to a launcher, for it to act upon (srun(1), "SIGNALS").
PASSED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
)
HELD = (*PASSED, signal.SIGCHLD)
SI_KERNEL = 0x80  # sigaction(2): from the terminal, which has sent it to the whole group already


@contextmanager
def signals_held() -> Iterator[set[int]]:
    """Hold the signals that wait() wants; give the mask that was there before, which is the child's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, which is inherited, none is sent
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait(pid: int) -> int:
    """Return the status of our child pid, as of waitpid(2), when it has ended; pass signals on until then."""
    while True:
        received = signal.sigwaitinfo(HELD)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
        elif received.si_code != SI_KERNEL:
            os.kill(pid, received.si_signo)


def end_alike(status: int) -> NoReturn:
    """End this process at once as its child did, by code or signal; what Python tidies up takes 10 ms."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
