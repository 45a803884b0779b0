"""Run checks, each in a process of its own and all at once: none can hang, end or change another.

A check may make namespaces, or look at a file system whose server has gone: then its process can't even be
killed (uninterruptible sleep), but need not be waited for.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from chlaunch.doctor.rows import Patient, Row, problem
from chlaunch.errors import ChlaunchError

# Between the two ways to end a process: what it made can be cleared away meanwhile.
GRACE = 1.0

_BLOCK = 65536


@dataclass(frozen=True)
class Check:
    """One thing to look at. area: the heading it stands under; deadline: seconds."""

    area: str
    name: str
    look: Callable[[Patient], list[Row]]
    deadline: float = 15.0


@dataclass(frozen=True)
class _Running:
    """A check that was started. pid: its process, the first of its process group; answer: a descriptor."""

    check: Check
    pid: int
    answer: int
    end: float


def run(checks: tuple[Check, ...], patient: Patient) -> Iterator[tuple[Check, list[Row]]]:
    """Start all checks, and give each with its rows, in their order."""
    sys.stdout.flush()
    running = [_start(check, patient) for check in checks]
    try:
        for one in running:
            yield one.check, _await(one)
    finally:
        for one in running:
            _end(one)
            os.close(one.answer)


def _start(check: Check, patient: Patient) -> _Running:
    """Start a check."""
    answer, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        _look(check, patient, told)
    os.close(told)
    with suppress(OSError):
        os.setpgid(pid, pid)
    return _Running(check, pid, answer, time.monotonic() + check.deadline)


def _look(check: Check, patient: Patient, told: int) -> NoReturn:
    """Be the process of a check."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was made is removed
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        rows = _rows(check, patient)
        with os.fdopen(told, "w") as file:
            json.dump([vars(row) for row in rows], file)
    finally:
        os._exit(0)


def _rows(check: Check, patient: Patient) -> list[Row]:
    """Return what the check says, whatever happens to it."""
    try:
        return check.look(patient)
    except ChlaunchError as error:
        return [problem(check.name, error.message, error.hint)]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return [problem(check.name, f"{where}{error.strerror or error}", "")]
    except Exception as error:  # noqa: BLE001  one broken check hides no other
        said = f"the check itself failed: {type(error).__name__}: {error}"
        return [problem(check.name, said, "please report this")]


def _await(running: _Running) -> list[Row]:
    """Return the rows of a check that was started, or one that says that it did not end."""
    text = b""
    while (left := running.end - time.monotonic()) > 0:
        if not select.select([running.answer], [], [], left)[0]:
            break
        block = os.read(running.answer, _BLOCK)
        text += block
        if not block:
            with suppress(ValueError, TypeError):
                return [Row(**row) for row in json.loads(text)]
            return [problem(running.check.name, "the check's process died", "please report this")]
    said = f"no answer in {running.check.deadline:g} s"
    return [problem(running.check.name, said, "does a file system or a daemon hang? df -h; dmesg")]


def _end(running: _Running) -> None:
    """See that no process of a check is left, but for one that can't be killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _has_ended(running.pid, 0):
            break
        with suppress(OSError):
            os.killpg(running.pid, number)
        if _has_ended(running.pid, GRACE):
            break
    with suppress(
        OSError
    ):  # what it started and did not wait for; before it is reaped, the number is its own
        os.killpg(running.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(running.pid, os.WNOHANG)


def _has_ended(pid: int, seconds: float) -> bool:
    """Say whether a child has ended, or does within that time; it is not reaped."""
    end = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True
